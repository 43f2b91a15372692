/* Recurrent layers over whole sequences, for K labels times B rows, and their gradients, with bfloat16 products.
 *
 * Labels and rows are N = K*B columns, column k * B + b; features come first. A thread takes WIDE columns through all
 * steps: their rounded state stays in the first cache and the rounded weights in the second, and what a step does
 * besides its product is done on the product's sums while they are there.
 */
#ifndef SEQSSVAE_RECURRENCE_H
#define SEQSSVAE_RECURRENCE_H

#include <stdint.h>

#include "parallel.h"

/* What can be called from outside: all else of the library has names of its own. */
#define EXPORT __attribute__((visibility("default")))

/* What all layers of a call have in common. GRU has gates r, u, n (G = 3H), LSTM i, f, g, o (G = 4H). */
typedef struct {
    int32_t lstm;
    int32_t layers, steps, size, columns, rows; /* D, T, H, N, B; H is a multiple of 8 */
    int64_t stride;                             /* from one step to the next in outputs and their gradients */
    int32_t threads;
    team team; /* NULL: threads are made for the call */
} shape;

/* A layer's arrays. Gradients are written, not added to. */
typedef struct {
    const float *row_gates;     /* (G, T, B) */
    const float *constant;      /* (G, N), or NULL for nothing */
    const float *first[2];      /* first states (H, N): output, and cell of an LSTM; NULL for zeros */
    const float *weight;        /* (G, H) */
    const float *bias_n;        /* (H) of a GRU */
    float *outputs;             /* (T, H, N), steps `stride` apart */
    void *kept[5];              /* GRU: W_n h + bias_n, r, u, n; LSTM: i, f, g, o, cell. Each T*H*N numbers in an */
                                /* order of their own (`place_of`): 16 bits each, but for cells in float32;    */
                                /* NULL: nothing is kept */
    const float *grad_outputs;  /* as outputs */
    uint16_t *grad_columns;     /* bfloat16 (G, T, N); GRU: of W_n h, r, u; LSTM: of i, f, g, o */
    uint16_t *grad_candidate;   /* bfloat16 (H, T, N) of a GRU: of n */
    uint16_t *states;           /* bfloat16 (T, N, H): the outputs before each step */
    float *grad_rows;           /* of row_gates */
    float *grad_constant;       /* of constant */
    float *grad_first[2];       /* of first */
    float *grad_bias;           /* of bias_n */
    uint32_t *packed;           /* rounded weights, G*H/2 pairs; set by the call */
} layer;

/* Of these structures and functions: to be raised with each change of what they mean, and to be known to a caller. */
#define INTERFACE 3

/* The number above, with the sizes of these structures and of the output layer's. */
EXPORT int64_t recurrence_interface(void);

/* Whether this processor has the instructions, and none that make other kernels faster (AMX). */
EXPORT int recurrence_available(void);

/* Write outputs, and what is kept. Returns 0, or -1 where there was no memory. */
EXPORT int recurrence_forward(const shape *all, layer *layers);

/* Write all gradients but the weight's, which is one product of what is written: grad_columns by states, over all steps
 * and columns. */
EXPORT int recurrence_backward(const shape *all, layer *layers);

#endif
