/* The output layer of a block of S steps and N positions over V symbols, with bfloat16 products.
 *
 * With few symbols all of it is made here, for WIDE positions at a time, whose logits stay in the cache. With many, whose
 * weights would have to be read again for each of these, products are made elsewhere, and here is what is between them.
 */
#ifndef SEQSSVAE_LIKELIHOOD_H
#define SEQSSVAE_LIKELIHOOD_H

#include "recurrence.h"

typedef struct {
    int32_t steps, symbols, columns, size; /* S, V, N, H */
    int32_t threads;
    team team;
    const float *hidden;    /* (S, H, N) */
    const float *weight;    /* (V, H) */
    const float *bias;      /* (V); -inf for what is never generated */
    const int32_t *targets; /* (S, N): symbols */
    const float *weights;   /* (S, N): of the log-probabilities; NULL: there is to be no gradient */
    const float *shift;     /* (S, N): what is subtracted from all logits of a position */
    float *sums;            /* (S, N): over symbols, of exponentials of what is then left of logits */
    float *chosen;          /* (S, N): what is left of the target's logit; no number where it is no symbol */
    uint16_t *logits;       /* bfloat16 (S, V, N): weight by hidden; or errors, which are their gradient */
    uint16_t *errors;       /* bfloat16 (V, S, N) */
    uint16_t *states;       /* bfloat16 (S, N, H): hidden */
    float *grad_hidden;     /* (S, H, N) */
    float *grad_bias;       /* (V): added to */
    float *memory;          /* set by the call */
    uint32_t *packed;       /* likewise */
} output;

/* Write sums and chosen, the greatest logit being subtracted, and if there are weights errors, states and grad_hidden.
 * The weight's gradient is one product of errors and states. H is a multiple of 8. Returns 0, or -1 where there was no
 * memory. */
EXPORT int likelihood_layer(output *all);

/* Write the sums of e^(logit + bias - shift), of logits as they are given. */
EXPORT int likelihood_sums(output *all);

/* Write errors over the logits: weight (1 at the target, else 0, - e^(logit + bias - shift)). */
EXPORT int likelihood_errors(output *all);

#endif
