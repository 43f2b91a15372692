#include "likelihood.h"

#include <stdlib.h>

#include "cells.h"

#ifdef HAS_KERNELS
#include "columns.h"

enum { LINES = 8, SUMMED = 64, CHANGED = 16 }; /* of a product; symbols a task */

static const float BITS = 1.44269504f; /* in a nat */

PRODUCT(product_of_lines, LINES)

static int parts(int all, int size) { return (all + size - 1) / size; }

static int padded(const output *all) { return parts(all->symbols, LINES) * LINES; }

/* Weights as both products read them: by 8 symbols and by pair of units, then by 8 units and by pair of symbols. */
static void pack(const void *given, int number, void *scratch) {
    const output *all = given;
    const int H = all->size, V = all->symbols, symbols = padded(all);
    if (number < symbols / LINES) {
        uint32_t *to = all->packed + (int64_t)number * LINES * H / 2;
        for (int line = 0; line < LINES; line++) {
            const int symbol = number * LINES + line;
            const float *row = all->weight + (int64_t)symbol * H;
            for (int pair = 0; pair < H / 2; pair++)
                to[pair * LINES + line] =
                    symbol < V ? bfloat16(row[2 * pair]) | bfloat16(row[2 * pair + 1]) << 16 : 0;
        }
        return;
    }
    const int unit = (number - symbols / LINES) * LINES;
    uint32_t *to = all->packed + (int64_t)symbols * H / 2 + (int64_t)unit * symbols / 2;
    for (int symbol = 0; symbol < symbols; symbol += 2) {
        const float *row = all->weight + (int64_t)symbol * H + unit;
        for (int i = 0; i < LINES; i++) {
            const uint32_t first = symbol < V ? bfloat16(row[i]) : 0;
            to[symbol / 2 * LINES + i] = first | (symbol + 1 < V ? bfloat16(row[H + i]) << 16 : 0);
        }
    }
    (void)scratch;
}

INLINE float *line_of(float *lines, int line, int half) { return lines + line * WIDE + 16 * half; }

/* Exponentials in the place of logits, which are given without the bias; returns their sums. */
INLINE __m512 exponentials(const output *all, const columns *at, int half, int64_t step, float *lines) {
    const int64_t place = step * all->columns + at->column + 16 * half;
    __m512 greatest = _mm512_set1_ps(-__builtin_inff()), sums = _mm512_setzero_ps();
    for (int symbol = 0; symbol < all->symbols; symbol++) {
        float *line = line_of(lines, symbol, half);
        const __m512 logit = add(_mm512_load_ps(line), _mm512_set1_ps(all->bias[symbol]));
        _mm512_store_ps(line, logit);
        greatest = _mm512_max_ps(logit, greatest);
    }
    const __m512i targets = _mm512_maskz_loadu_epi32(at->mask[half], all->targets + place);
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i index = _mm512_add_epi32(_mm512_slli_epi32(targets, 5), lane);
    const __mmask16 known = _mm512_mask_cmplt_epu32_mask(at->mask[half], targets, _mm512_set1_epi32(all->symbols));
    const __m512 none = _mm512_set1_ps(__builtin_nanf(""));
    const __m512 chosen = _mm512_mask_i32gather_ps(none, known, index, line_of(lines, 0, half), 4);
    for (int symbol = 0; symbol < all->symbols; symbol++) {
        float *line = line_of(lines, symbol, half);
        const __m512 left = subtract(_mm512_load_ps(line), greatest);
        const __m512 share = power_of_two(multiply(left, _mm512_set1_ps(BITS)));
        _mm512_store_ps(line, share);
        sums = add(sums, share);
    }
    _mm512_mask_storeu_ps(all->sums + place, at->mask[half], sums);
    _mm512_mask_storeu_ps(all->chosen + place, at->mask[half], subtract(chosen, greatest));
    return sums;
}

/* The errors of a symbol, from its exponentials. */
INLINE __m512 error_of(const output *all, const columns *at, int half, int64_t step, int symbol, __m512 share,
                       __m512 weight, __m512 scale, __m512i targets, float *bias) {
    if (symbol >= all->symbols) return _mm512_setzero_ps();
    const __mmask16 is_it = _mm512_cmpeq_epi32_mask(targets, _mm512_set1_epi32(symbol));
    const __m512 error = _mm512_fnmadd_ps(share, scale, _mm512_maskz_mov_ps(is_it, weight));
    bias[symbol] += _mm512_mask_reduce_add_ps(at->mask[half], error);
    give_rounded(at, half, all->errors + ((int64_t)symbol * all->steps + step) * all->columns + at->column, error);
    return error;
}

/* All of a step of WIDE positions. */
AVX512 static void read_some(const void *given, int number, void *scratch) {
    const output *all = given;
    const int H = all->size, symbols = padded(all), blocks = parts(all->columns, WIDE);
    const int64_t N = all->columns, step = number / blocks;
    const shape of_columns = {.size = H, .columns = all->columns, .rows = all->columns};
    const columns at = columns_of(&of_columns, number % blocks);
    uint32_t *states = scratch, *errors = states + H / 2 * WIDE;
    float *lines = (float *)(errors + symbols / 2 * WIDE), *totals = lines + symbols * WIDE;
    begin(&of_columns, all->hidden + step * H * N, &at, states, NULL);
    for (int symbol = 0; symbol < symbols; symbol += LINES)
        product_of_lines(all->packed + (int64_t)symbol * H / 2, states, H / 2, lines + symbol * WIDE, 0);
    float *bias = all->memory + (int64_t)number * all->symbols;
    for (int half = 0; half < 2; half++) {
        const __m512 sums = exponentials(all, &at, half, step, lines);
        if (!all->weights) continue;
        const int64_t place = step * N + at.column + 16 * half;
        const __m512 weight = _mm512_maskz_loadu_ps(at.mask[half], all->weights + place);
        const __m512 scale = _mm512_maskz_div_ps(at.mask[half], weight, sums);
        const __m512i targets = _mm512_mask_loadu_epi32(_mm512_set1_epi32(-1), at.mask[half], all->targets + place);
        for (int symbol = 0; symbol < symbols; symbol += 2) {
            __m512 found[2];
            UNROLL for (int i = 0; i < 2; i++) {
                const __m512 share = _mm512_load_ps(line_of(lines, symbol + i, half));
                found[i] = error_of(all, &at, half, step, symbol + i, share, weight, scale, targets, bias);
            }
            _mm512_store_si512(errors + symbol / 2 * WIDE + 16 * half, pairs(found[0], found[1]));
        }
    }
    if (!all->weights) return;
    const uint32_t *packed = all->packed + (int64_t)symbols * H / 2;
    for (int unit = 0; unit < H; unit += LINES) {
        const int64_t place = (step * H + unit) * N + at.column;
        product_of_lines(packed + (int64_t)unit * symbols / 2, errors, symbols / 2, totals, 0);
        for (int line = 0; line < LINES; line++)
            UNROLL for (int half = 0; half < 2; half++)
                give(&at, half, all->grad_hidden + place + line * N, _mm512_load_ps(line_of(totals, line, half)));
        give_rows(&at, all->hidden + place, N, all->states + (step * N + at.column) * H + unit, H);
    }
}

int likelihood_layer(output *all) {
    const int64_t H = all->size, symbols = padded(all);
    const int tasks = all->steps * parts(all->columns, WIDE);
    const int packs = (int)(symbols / LINES + (all->weights ? H / LINES : 0));
    const size_t scratch = (size_t)(H / 2 + symbols / 2 + symbols + LINES) * WIDE * 4;
    all->packed = aligned_alloc(64, (size_t)(symbols * H * 4 + 63) / 64 * 64);
    all->memory = calloc((size_t)tasks * all->symbols + 1, sizeof *all->memory);
    const int failed = !all->packed || !all->memory || parallel(all->team, all->threads, pack, all, packs, 0) ||
                       parallel(all->team, all->threads, read_some, all, tasks, scratch);
    for (int task = 0; !failed && all->weights && task < tasks; task++)
        for (int symbol = 0; symbol < all->symbols; symbol++)
            all->grad_bias[symbol] += all->memory[(int64_t)task * all->symbols + symbol];
    free(all->packed), free(all->memory);
    return failed ? -1 : 0;
}

/* e^(logit + bias - shift), of 16 positions, where bias and shift are given in bits. */
INLINE __m512 share_of(const uint16_t *logits, __mmask16 mask, __m512 bias, const float *shift) {
    __m512 logit = widened(_mm256_maskz_loadu_epi16(mask, logits));
    __m512 bits = _mm512_fmadd_ps(logit, _mm512_set1_ps(BITS), bias);
    return power_of_two(subtract(bits, _mm512_maskz_loadu_ps(mask, shift)));
}

INLINE __mmask16 mask_of(int count, int first) {
    const int left = count - first;
    return left < 16 ? (__mmask16)((1u << left) - 1) : 0xffff;
}

AVX512 static void in_bits(const float *nats, int count, float *bits) {
    for (int i = 0; i < count; i++) bits[i] = nats[i] * BITS;
}

/* Sums over some symbols of a step. */
AVX512 static void sum_some(const void *given, int number, void *scratch) {
    const output *all = given;
    const int count = parts(all->symbols, SUMMED), first = number % count * SUMMED;
    const int last = first + SUMMED < all->symbols ? first + SUMMED : all->symbols;
    const int64_t N = all->columns, step = number / count;
    float *shift = scratch, *sums = all->memory + number * N;
    in_bits(all->shift + step * N, (int)N, shift);
    memset(sums, 0, (size_t)N * sizeof *sums);
    for (int symbol = first; symbol < last; symbol++) {
        const uint16_t *logits = all->logits + (step * all->symbols + symbol) * N;
        const __m512 bias = _mm512_set1_ps(all->bias[symbol] * BITS);
        for (int column = 0; column < N; column += 16) {
            const __mmask16 mask = mask_of(all->columns, column);
            const __m512 share = share_of(logits + column, mask, bias, shift + column);
            _mm512_mask_storeu_ps(sums + column, mask, add(_mm512_maskz_loadu_ps(mask, sums + column), share));
        }
    }
}

/* Sums over all symbols of a step. */
static void sum_up(const void *given, int step, void *scratch) {
    const output *all = given;
    const int64_t N = all->columns, count = parts(all->symbols, SUMMED);
    const float *some = all->memory + step * count * N;
    float *sums = all->sums + step * N;
    memset(sums, 0, (size_t)N * sizeof *sums);
    for (int64_t part = 0; part < count; part++)
        for (int64_t column = 0; column < N; column++) sums[column] += some[part * N + column];
    (void)scratch;
}

int likelihood_sums(output *all) {
    const int tasks = all->steps * parts(all->symbols, SUMMED);
    const size_t line = (size_t)all->columns * sizeof(float);
    if (!(all->memory = malloc(tasks * line + 1))) return -1;
    const int failed = parallel(all->team, all->threads, sum_some, all, tasks, line) ||
                       parallel(all->team, all->threads, sum_up, all, all->steps, 0);
    free(all->memory);
    return failed ? -1 : 0;
}

/* Errors of some symbols, of all steps. */
AVX512 static void change_some(const void *given, int number, void *scratch) {
    const output *all = given;
    const int first = number * CHANGED;
    const int last = first + CHANGED < all->symbols ? first + CHANGED : all->symbols;
    const int64_t N = all->columns;
    float *shift = scratch;
    for (int64_t step = 0; step < all->steps; step++) {
        in_bits(all->shift + step * N, (int)N, shift);
        for (int symbol = first; symbol < last; symbol++) {
            uint16_t *logits = all->logits + (step * all->symbols + symbol) * N;
            const __m512 bias = _mm512_set1_ps(all->bias[symbol] * BITS);
            __m512 total = _mm512_setzero_ps();
            for (int column = 0; column < N; column += 16) {
                const __mmask16 mask = mask_of(all->columns, column);
                const __m512 weight = _mm512_maskz_loadu_ps(mask, all->weights + step * N + column);
                const __m512i targets = _mm512_maskz_loadu_epi32(mask, all->targets + step * N + column);
                const __mmask16 is_it = _mm512_cmpeq_epi32_mask(targets, _mm512_set1_epi32(symbol));
                __m512 left = _mm512_maskz_mov_ps(is_it, _mm512_set1_ps(1.0f));
                left = subtract(left, share_of(logits + column, mask, bias, shift + column));
                const __m512 error = multiply(weight, left);
                total = _mm512_mask_add_ps(total, mask, total, error);
                _mm256_mask_storeu_epi16(logits + column, mask, rounded(error));
            }
            all->grad_bias[symbol] += _mm512_reduce_add_ps(total);
        }
    }
}

int likelihood_errors(output *all) {
    const size_t line = (size_t)all->columns * sizeof(float);
    return parallel(all->team, all->threads, change_some, all, parts(all->symbols, CHANGED), line);
}

#else

int likelihood_layer(output *all) { return (void)all, -1; }

int likelihood_sums(output *all) { return (void)all, -1; }

int likelihood_errors(output *all) { return (void)all, -1; }

#endif
