/* Where WIDE columns of a layer are. */
#ifndef SEQSSVAE_COLUMNS_H
#define SEQSSVAE_COLUMNS_H

#include <string.h>

#include "recurrence.h"
#include "vectors.h"

/* Columns from `column` on, `width` of them; each half is one vector. */
typedef struct {
    int column, width;
    __mmask16 mask[2];
    int adjacent[2]; /* whether the rows of a half follow each other */
    int row[2];      /* of its first column */
    __m512i rows[2];
} columns;

INLINE columns columns_of(const shape *all, int block) {
    columns found = {.column = block * WIDE};
    found.width = all->columns - found.column < WIDE ? all->columns - found.column : WIDE;
    UNROLL for (int half = 0; half < 2; half++) {
        int first = found.column + 16 * half, left = found.width - 16 * half;
        left = left < 0 ? 0 : left > 16 ? 16 : left;
        int32_t rows[16];
        for (int i = 0; i < 16; i++) rows[i] = (first + (i < left ? i : 0)) % all->rows;
        found.mask[half] = (__mmask16)((1u << left) - 1);
        found.rows[half] = _mm512_loadu_si512(rows);
        found.row[half] = rows[0];
        found.adjacent[half] = rows[0] + left <= all->rows;
    }
    return found;
}

/* A half of what lies as columns, from the first column on. */
INLINE __m512 take(const columns *at, int half, const float *from) {
    return _mm512_maskz_loadu_ps(at->mask[half], from + 16 * half);
}

INLINE void give(const columns *at, int half, float *to, __m512 values) {
    _mm512_mask_storeu_ps(to + 16 * half, at->mask[half], values);
}

INLINE void give_rounded(const columns *at, int half, uint16_t *to, __m512 values) {
    _mm256_mask_storeu_epi16(to + 16 * half, at->mask[half], rounded(values));
}

INLINE __m512 recall(const columns *at, int half, const uint16_t *from) {
    return widened(_mm256_maskz_loadu_epi16(at->mask[half], from + 16 * half));
}

/* What is kept of gates and candidates: 16 bits, steps of 2^-16 from 0 to 1, and of 2^-15 from -1 to 1. A float16 would
 * be as short, but near 1 its steps are 2^-11, and the slope of a gate is what is left to 1. */
INLINE __m512 recall_gate(const columns *at, int half, const void *from) {
    __m256i steps = _mm256_maskz_loadu_epi16(at->mask[half], (const uint16_t *)from + 16 * half);
    return multiply(_mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(steps)), _mm512_set1_ps(1 / 65535.0f));
}

INLINE __m512 recall_candidate(const columns *at, int half, const void *from) {
    __m256i steps = _mm256_maskz_loadu_epi16(at->mask[half], (const uint16_t *)from + 16 * half);
    return multiply(_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(steps)), _mm512_set1_ps(1 / 32767.0f));
}

INLINE void keep(const columns *at, int half, void *to, __m512 values, float steps) {
    __m512i nearest = _mm512_cvtps_epi32(multiply(values, _mm512_set1_ps(steps)));
    _mm256_mask_storeu_epi16((uint16_t *)to + 16 * half, at->mask[half], _mm512_cvtepi32_epi16(nearest));
}

INLINE void keep_gate(const columns *at, int half, void *to, __m512 values) { keep(at, half, to, values, 65535.0f); }

INLINE void keep_candidate(const columns *at, int half, void *to, __m512 values) {
    keep(at, half, to, values, 32767.0f);
}

/* A half of what lies as rows, the same for every label. */
INLINE __m512 take_rows(const columns *at, int half, const float *from) {
    if (at->adjacent[half]) return _mm512_maskz_loadu_ps(at->mask[half], from + at->row[half]);
    return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), at->mask[half], at->rows[half], from, 4);
}

/* What rows and constant contribute to gate `line` of G at a step. */
INLINE __m512 input(const shape *all, const layer *of, const columns *at, int half, int step, int line) {
    __m512 found = take_rows(at, half, of->row_gates + ((int64_t)line * all->steps + step) * all->rows);
    if (!of->constant) return found;
    return add(found, take(at, half, of->constant + (int64_t)line * all->columns + at->column));
}

/* A unit's place in what is kept: column block by column block, in each step by step and unit by unit. */
INLINE int64_t place_of(const shape *all, const columns *at, int step, int unit) {
    return (int64_t)at->column * all->steps * all->size + ((int64_t)step * all->size + unit) * at->width;
}

/* Take the first states: rounded, in pairs of units, and as they are; each where there is a place for it. */
INLINE void begin(const shape *all, const float *first, const columns *at, uint32_t *rounded_pairs, float *states) {
    for (int unit = 0; unit < all->size; unit += 2) {
        UNROLL for (int half = 0; half < 2; half++) {
            __m512 found[2];
            UNROLL for (int i = 0; i < 2; i++) {
                const float *from = first ? first + (int64_t)(unit + i) * all->columns + at->column : NULL;
                found[i] = from ? take(at, half, from) : _mm512_setzero_ps();
                if (states) _mm512_store_ps(states + (unit + i) * WIDE + 16 * half, found[i]);
            }
            if (!rounded_pairs) continue;
            _mm512_store_si512(rounded_pairs + unit / 2 * WIDE + 16 * half, pairs(found[0], found[1]));
        }
    }
}

/* Write 8 lines, the first of which is `from` (NULL for zeros) and that are `stride` apart, rounded, as rows of `size`:
 * 8 by 16 numbers are turned at a time. */
INLINE void give_rows(const columns *at, const float *from, int64_t stride, uint16_t *to, int64_t size) {
    UNROLL for (int half = 0; half < 2; half++) {
        __m256i a[8], b[8];
        UNROLL for (int i = 0; i < 8; i++)
            a[i] = rounded(from ? take(at, half, from + i * stride) : _mm512_setzero_ps());
        UNROLL for (int i = 0; i < 4; i++) {
            b[2 * i] = _mm256_unpacklo_epi16(a[2 * i], a[2 * i + 1]);
            b[2 * i + 1] = _mm256_unpackhi_epi16(a[2 * i], a[2 * i + 1]);
        }
        UNROLL for (int i = 0; i < 8; i += 4) {
            UNROLL for (int j = 0; j < 2; j++) {
                a[i + 2 * j] = _mm256_unpacklo_epi32(b[i + j], b[i + j + 2]);
                a[i + 2 * j + 1] = _mm256_unpackhi_epi32(b[i + j], b[i + j + 2]);
            }
        }
        UNROLL for (int j = 0; j < 4; j++) {
            b[2 * j] = _mm256_unpacklo_epi64(a[j], a[j + 4]);
            b[2 * j + 1] = _mm256_unpackhi_epi64(a[j], a[j + 4]);
        }
        UNROLL for (int j = 0; j < 8; j++) { /* columns j and j + 8 of this half */
            const int column = 16 * half + j;
            __m128i *rows = (__m128i *)(to + column * size);
            if (column < at->width) _mm_storeu_si128(rows, _mm256_castsi256_si128(b[j]));
            if (column + 8 < at->width) _mm_storeu_si128(rows + size, _mm256_extracti128_si256(b[j], 1));
        }
    }
}

/* Write 8 units' outputs before a step. */
INLINE void give_states(const shape *all, const layer *of, const columns *at, int step, int unit) {
    const float *from = step ? of->outputs + (step - 1) * all->stride : of->first[0];
    uint16_t *to = of->states + ((int64_t)step * all->columns + at->column) * all->size + unit;
    give_rows(at, from ? from + (int64_t)unit * all->columns + at->column : NULL, all->columns, to, all->size);
}

/* Write lines of WIDE columns to where they lie as columns. */
INLINE void finish(const shape *all, const columns *at, const float *lines, int count, float *to) {
    for (int line = 0; to && line < count; line++) {
        float *place = to + (int64_t)line * all->columns + at->column;
        UNROLL for (int half = 0; half < 2; half++)
            give(at, half, place, _mm512_load_ps(lines + line * WIDE + 16 * half));
    }
}

/* Have what a line of columns, or of rows, holds for these columns brought to the first cache: a product is under way
 * until it is needed. */
INLINE void fetch(const columns *at, const float *from) {
    __builtin_prefetch(from);
    if (at->width > 16) __builtin_prefetch(from + 16);
}

INLINE void fetch_inputs(const shape *all, const layer *of, const columns *at, int step, int line) {
    const float *rows = of->row_gates + ((int64_t)line * all->steps + step) * all->rows;
    __builtin_prefetch(rows + at->row[0]);
    if (at->width > 16) __builtin_prefetch(rows + at->row[1]);
    if (of->constant) fetch(at, of->constant + (int64_t)line * all->columns + at->column);
}

/* Add to a sum over steps. */
INLINE void accumulate(float *line, int half, __m512 values) {
    _mm512_store_ps(line + 16 * half, add(_mm512_load_ps(line + 16 * half), values));
}

#endif
