/* The same calls as XLA makes them on a CPU.
 *
 * One attribute, int32: cell (0: GRU, 1: LSTM), D, T, H, N, B, whether there is a constant, whether something is kept.
 * xla_forward: of each layer row_gates, constant, first, weight, bias_n; gives of each outputs, kept.
 * xla_backward: of each layer first, weight, outputs, kept, grad_outputs; gives of each grad_rows, grad_constant,
 * grad_first, grad_bias, grad_columns, grad_candidate, states.
 */
#define _GNU_SOURCE
#include "xla.h"

#ifdef __linux__
#include <sched.h>
#endif
#include <stdlib.h>
#include <string.h>

#include "recurrence.h"

enum { NUMBERS = 8, LAYERS = 8 };

static void *fail(const frame *given, int code, const char *message) {
    error made = {sizeof made, NULL, message, code};
    return given->interface->create_error(&made);
}

static int processors(void) {
#ifdef __linux__
    cpu_set_t usable;
    if (!sched_getaffinity(0, sizeof usable, &usable)) return CPU_COUNT(&usable);
#endif
    return 1;
}

/* Where XLA asks what a function is, say so: as recent as XLA is itself, for what is used here does not change. */
static int introduced(const frame *given) {
    if (!given->extension || given->extension->type != METADATA) return 0;
    metadata *about = ((metadata_extension *)given->extension)->metadata;
    about->version.major = 0, about->version.minor = 3;
    const interface *xla = given->interface;
    if (xla && xla->version.major == 0) about->version.minor = xla->version.minor;
    about->traits = 0;
    return 1;
}

typedef struct {
    buffer **next, **end;
} queue;

static void *take(queue *from) { return from->next < from->end ? (*from->next++)->data : NULL; }

static void *run(const frame *given, int back) {
    const attributes *numbers = &given->attributes;
    if (numbers->size != 1 || numbers->types[0] != ARRAY || numbers->values[0]->type != INT32 ||
        numbers->values[0]->size != NUMBERS)
        return fail(given, INVALID, "seqssvae: a recurrence is described by 8 int32 numbers.");
    const int32_t *number = numbers->values[0]->data;
    shape all = {number[0], number[1], number[2], number[3], number[4], number[5], (int64_t)number[3] * number[4],
                 processors(), NULL};
    const int has_constant = number[6], states = all.lstm ? 2 : 1, kept = !number[7] ? 0 : all.lstm ? 5 : 4;
    const int taken = back ? states + 3 + kept : 2 + states + !all.lstm + has_constant;
    const int given_back = back ? 3 + states + 2 * !all.lstm + has_constant : 1 + kept;
    if (all.layers < 1 || all.layers > LAYERS || given->arguments.size != all.layers * taken ||
        given->results.size != all.layers * given_back)
        return fail(given, INVALID, "seqssvae: a recurrence was given another number of arrays than it has.");
    queue from = {given->arguments.buffers, given->arguments.buffers + given->arguments.size};
    queue to = {given->results.buffers, given->results.buffers + given->results.size};
    layer layers[LAYERS];
    memset(layers, 0, sizeof layers);
    for (int i = 0; i < all.layers; i++) {
        layer *one = layers + i;
        if (!back) one->row_gates = take(&from);
        if (!back && has_constant) one->constant = take(&from);
        for (int j = 0; j < states; j++) one->first[j] = take(&from);
        one->weight = take(&from);
        if (!back && !all.lstm) one->bias_n = take(&from);
        one->outputs = take(back ? &from : &to);
        for (int j = 0; j < kept; j++) one->kept[j] = take(back ? &from : &to);
        if (!back) continue;
        one->grad_outputs = take(&from);
        one->grad_rows = take(&to);
        if (has_constant) one->grad_constant = take(&to);
        for (int j = 0; j < states; j++) one->grad_first[j] = take(&to);
        if (!all.lstm) one->grad_bias = take(&to);
        one->grad_columns = take(&to);
        if (!all.lstm) one->grad_candidate = take(&to);
        one->states = take(&to);
    }
    if (back ? recurrence_backward(&all, layers) : recurrence_forward(&all, layers))
        return fail(given, EXHAUSTED, "seqssvae: no memory for the rounded weights of a recurrence.");
    return NULL;
}

EXPORT void *xla_forward(frame *given) { return introduced(given) ? NULL : run(given, 0); }

EXPORT void *xla_backward(frame *given) { return introduced(given) ? NULL : run(given, 1); }
