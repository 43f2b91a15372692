#include "recurrence.h"

#include <stdlib.h>
#include <string.h>

#include "cells.h"
#include "likelihood.h"

int64_t recurrence_interface(void) {
    return (int64_t)INTERFACE << 48 | (int64_t)sizeof(shape) << 32 | sizeof(layer) << 16 | sizeof(output);
}

#ifdef HAS_KERNELS
#include <cpuid.h>

#include "vectors.h"

typedef struct {
    const shape *all;
    const layer *layers;
    const cell *kind;
} call;

/* Weights as the product of some units' gates reads them: by pair of states, then by gate and unit. */
static void pack_forward(const void *given, int number, void *scratch) {
    const call *of = given;
    const int H = of->all->size, units = of->kind->units, gates = of->kind->gates, lines = gates * units;
    const layer *one = of->layers + number / (H / units);
    const int unit = number % (H / units) * units;
    uint32_t *to = one->packed + (int64_t)unit * gates * (H / 2);
    for (int line = 0; line < lines; line++) {
        const float *row = one->weight + ((int64_t)(line / units) * H + unit + line % units) * H;
        for (int pair = 0; pair < H / 2; pair++)
            to[pair * lines + line] = bfloat16(row[2 * pair]) | bfloat16(row[2 * pair + 1]) << 16;
    }
    (void)scratch;
}

/* Weights as the product of the gates' gradients reads them: by 8 units, by pair of gates (in the order of
 * grad_columns: a GRU's n comes first), then by unit. */
static void pack_backward(const void *given, int number, void *scratch) {
    const call *of = given;
    const int H = of->all->size, lines = of->kind->gates * H, shift = of->kind == &gru ? 2 * H : 0;
    const layer *one = of->layers + number / (H / 8);
    const int unit = number % (H / 8) * 8;
    uint32_t *to = one->packed + (int64_t)unit * lines / 2;
    for (int line = 0; line < lines; line += 2) {
        const float *row = one->weight + (int64_t)((line + shift) % lines) * H + unit;
        for (int i = 0; i < 8; i++) to[line / 2 * 8 + i] = bfloat16(row[i]) | bfloat16(row[H + i]) << 16;
    }
    (void)scratch;
}

static int blocks(const shape *all) { return (all->columns + WIDE - 1) / WIDE; }

static void read(const void *given, int number, void *scratch) {
    const call *of = given;
    of->kind->forward(of->all, of->layers + number / blocks(of->all), number % blocks(of->all), scratch);
}

static void read_back(const void *given, int number, void *scratch) {
    const call *of = given;
    of->kind->backward(of->all, of->layers + number / blocks(of->all), number % blocks(of->all), scratch);
}

INLINE __m512 of_columns(const uint16_t *from, int count) {
    __mmask16 mask = count < 16 ? (__mmask16)((1u << count) - 1) : 0xffff;
    return widened(_mm256_maskz_loadu_epi16(mask, from));
}

/* A GRU's bias: over steps and columns. */
AVX512 static float sum_all(const uint16_t *from, int64_t count) {
    __m512 total = _mm512_setzero_ps();
    for (; count > 0; from += 16, count -= 16) total = add(total, of_columns(from, count < 16 ? (int)count : 16));
    return _mm512_reduce_add_ps(total);
}

/* A gate's rows: over labels. */
AVX512 static void sum_labels(const shape *all, const uint16_t *from, float *to) {
    for (int step = 0; step < all->steps; step++, from += all->columns, to += all->rows) {
        for (int row = 0; row < all->rows; row += 16) {
            const int left = all->rows - row;
            __m512 total = _mm512_setzero_ps();
            for (int column = row; column < all->columns; column += all->rows)
                total = add(total, of_columns(from + column, left));
            _mm512_mask_storeu_ps(to + row, left < 16 ? (__mmask16)((1u << left) - 1) : 0xffff, total);
        }
    }
}

/* What is summed of the gradients of 8 units' gates. */
static void sum_units(const void *given, int number, void *scratch) {
    const call *of = given;
    const shape *all = of->all;
    const int H = all->size, inner = of->kind == &gru;
    const layer *one = of->layers + number / (H / 8);
    const int64_t columns = (int64_t)all->steps * all->columns, rows = (int64_t)all->steps * all->rows;
    const int first = number % (H / 8) * 8;
    for (int unit = first; unit < first + 8; unit++) {
        if (inner) one->grad_bias[unit] = sum_all(one->grad_columns + unit * columns, columns);
        for (int gate = 0; gate < of->kind->gates; gate++) {
            const int apart = inner && gate == 2; /* a GRU's candidate, after what goes to W_n h, r and u */
            const int64_t line = (int64_t)(apart ? 0 : gate + inner) * H + unit;
            const uint16_t *from = (apart ? one->grad_candidate : one->grad_columns) + line * columns;
            sum_labels(all, from, one->grad_rows + ((int64_t)gate * H + unit) * rows);
        }
    }
    (void)scratch;
}

static int run_call(const shape *all, layer *layers, int back) {
    const cell *kind = all->lstm ? &lstm : &gru;
    const int64_t size = all->size, weights = kind->gates * size * size / 2; /* pairs of a layer */
    const int tasks = all->layers * blocks(all);
    uint32_t *packed = aligned_alloc(64, (size_t)(all->layers * weights * 4 + 63) / 64 * 64);
    if (!packed) return -1;
    for (int i = 0; i < all->layers; i++) layers[i].packed = packed + i * weights;
    call of = {all, layers, kind};
    int failed;
    if (back) {
        const size_t scratch = (size_t)(kind->backward_lines + kind->gates) * size * WIDE * 4;
        failed = parallel(all->team, all->threads, pack_backward, &of, all->layers * (int)(size / 8), 0) ||
                 parallel(all->team, all->threads, read_back, &of, tasks, scratch) ||
                 parallel(all->team, all->threads, sum_units, &of, all->layers * (int)(size / 8), 0);
    } else {
        const size_t scratch = (size_t)kind->forward_lines * size * WIDE * 4;
        failed = parallel(all->team, all->threads, pack_forward, &of, all->layers * (int)(size / kind->units), 0) ||
                 parallel(all->team, all->threads, read, &of, tasks, scratch);
    }
    free(packed);
    return failed ? -1 : 0;
}

int recurrence_available(void) {
    unsigned a, b, c, d;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 22 & 1) return 0; /* AMX multiplies bfloat16 faster */
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return 0; /* AVX-512 for bfloat16 */
    __builtin_cpu_init(); /* and the system saves the registers */
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

int recurrence_forward(const shape *all, layer *layers) { return run_call(all, layers, 0); }

int recurrence_backward(const shape *all, layer *layers) { return run_call(all, layers, 1); }

#else

int recurrence_available(void) { return 0; }

int recurrence_forward(const shape *all, layer *layers) { return (void)all, (void)layers, -1; }

int recurrence_backward(const shape *all, layer *layers) { return (void)all, (void)layers, -1; }

#endif
