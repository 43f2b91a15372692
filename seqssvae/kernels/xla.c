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

/* Arrays in their order; `wrong` is set where one is missing, or has another type or number of numbers. */
typedef struct {
    buffer **next, **end;
    int wrong;
} queue;

static void *next_of(queue *from, int type, int64_t lines, int64_t count) {
    if (from->next == from->end) return from->wrong = 1, NULL;
    const buffer *found = *from->next++;
    int64_t numbers = 1;
    for (int64_t i = 0; i < found->rank; i++) numbers *= found->sizes[i];
    if (found->type != type || numbers != lines * count) from->wrong = 1;
    return found->data;
}

static void *run(const frame *given, int back) {
    const attributes *numbers = &given->attributes;
    if (numbers->size != 1 || numbers->types[0] != ARRAY || numbers->values[0]->type != INT32 ||
        numbers->values[0]->size != NUMBERS)
        return fail(given, INVALID, "seqssvae: a recurrence is described by 8 int32 numbers.");
    const int32_t *number = numbers->values[0]->data;
    const shape all = {number[0], number[1], number[2], number[3], number[4], number[5],
                       (int64_t)number[3] * number[4], processors(), NULL};
    const int has_constant = number[6], states = all.lstm ? 2 : 1, kept = !number[7] ? 0 : all.lstm ? 5 : 4;
    const int64_t H = all.size, G = (all.lstm ? 4 : 3) * H, N = all.columns;
    const int64_t rows = (int64_t)all.steps * all.rows, columns = all.steps * N;
    if (all.layers < 1 || all.layers > LAYERS || H % 8)
        return fail(given, INVALID, "seqssvae: a recurrence has 1 to 8 layers, and a multiple of 8 units.");
    queue from = {given->arguments.buffers, given->arguments.buffers + given->arguments.size, 0};
    queue to = {given->results.buffers, given->results.buffers + given->results.size, 0};
    layer layers[LAYERS];
    memset(layers, 0, sizeof layers);
    for (int i = 0; i < all.layers; i++) {
        layer *one = layers + i;
        if (!back) one->row_gates = next_of(&from, FLOAT32, G, rows);
        if (!back && has_constant) one->constant = next_of(&from, FLOAT32, G, N);
        for (int j = 0; j < states; j++) one->first[j] = next_of(&from, FLOAT32, H, N);
        one->weight = next_of(&from, FLOAT32, G, H);
        if (!back && !all.lstm) one->bias_n = next_of(&from, FLOAT32, H, 1);
        one->outputs = next_of(back ? &from : &to, FLOAT32, H, columns);
        for (int j = 0; j < kept; j++) one->kept[j] = next_of(back ? &from : &to, FLOAT32, H, columns);
        if (!back) continue;
        one->grad_outputs = next_of(&from, FLOAT32, H, columns);
        one->grad_rows = next_of(&to, FLOAT32, G, rows);
        if (has_constant) one->grad_constant = next_of(&to, FLOAT32, G, N);
        for (int j = 0; j < states; j++) one->grad_first[j] = next_of(&to, FLOAT32, H, N);
        if (!all.lstm) one->grad_bias = next_of(&to, FLOAT32, H, 1);
        one->grad_columns = next_of(&to, BFLOAT16, G, columns);
        if (!all.lstm) one->grad_candidate = next_of(&to, BFLOAT16, H, columns);
        one->states = next_of(&to, BFLOAT16, H, columns);
    }
    if (from.wrong || to.wrong || from.next != from.end || to.next != to.end)
        return fail(given, INVALID, "seqssvae: a recurrence's arrays are not those that its 8 numbers describe.");
    if (back ? recurrence_backward(&all, layers) : recurrence_forward(&all, layers))
        return fail(given, EXHAUSTED, "seqssvae: no memory for the weights of a recurrence, or the work of a thread.");
    return NULL;
}

EXPORT void *xla_forward(frame *given) { return introduced(given) ? NULL : run(given, 0); }

EXPORT void *xla_backward(frame *given) { return introduced(given) ? NULL : run(given, 1); }
