/* Sixteen float32 at a time, and products of bfloat16 pairs (AVX-512 with its bfloat16 extension). */
#ifndef SEQSSVAE_VECTORS_H
#define SEQSSVAE_VECTORS_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define INLINE static inline __attribute__((always_inline)) AVX512
#define UNROLL _Pragma("GCC unroll 16")

/* Columns that are read together: two vectors. */
#define WIDE 32

INLINE __m512 add(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
INLINE __m512 subtract(__m512 a, __m512 b) { return _mm512_sub_ps(a, b); }
INLINE __m512 multiply(__m512 a, __m512 b) { return _mm512_mul_ps(a, b); }
INLINE __m512 one_minus(__m512 a) { return _mm512_sub_ps(_mm512_set1_ps(1.0f), a); }
/* 1 - a a */
INLINE __m512 slope_of_tanh(__m512 a) { return _mm512_fnmadd_ps(a, a, _mm512_set1_ps(1.0f)); }

/* 2^y: 2^floor(y) times a polynomial in the rest (degree 5, fitted for the least relative error on [0, 1): 7.5e-8). */
INLINE __m512 power_of_two(__m512 y) {
    __m512 rest = _mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF);
    __m512 power = _mm512_set1_ps(0.00187757659f);
    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(0.00898934063f));
    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(0.0558263172f));
    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(0.240153618f));
    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(0.693153073f));
    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(0.999999925f));
    return _mm512_scalef_ps(power, y);
}

/* 1 / (1 + 2^y). The reciprocal: an estimate of 14 bits and a step of Newton's. y is bounded, since 2^y must not be
 * infinite; min gives its second operand where one is no number. */
INLINE __m512 open_share(__m512 y) {
    __m512 sum = add(power_of_two(_mm512_min_ps(_mm512_set1_ps(126.0f), y)), _mm512_set1_ps(1.0f));
    __m512 estimate = _mm512_rcp14_ps(sum);
    return multiply(estimate, _mm512_fnmadd_ps(sum, estimate, _mm512_set1_ps(2.0f)));
}

INLINE __m512 sigmoid(__m512 x) { return open_share(multiply(x, _mm512_set1_ps(-1.44269504f))); }

/* 2 sigmoid(2 x) - 1: the absolute error is of the order of the last place of 1. */
INLINE __m512 tangent(__m512 x) {
    __m512 share = open_share(multiply(x, _mm512_set1_ps(-2.88539008f)));
    return _mm512_fmsub_ps(_mm512_set1_ps(2.0f), share, _mm512_set1_ps(1.0f));
}

INLINE __m256i rounded(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }
INLINE __m512 widened(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }

/* A single number, in the lower half. */
static inline uint32_t bfloat16(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return bits >> 16 | 0x40; /* no number stays none */
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

/* Operands of a product come as pairs of bfloat16, the first in the lower half. */
INLINE __m512i pairs(__m512 first, __m512 second) {
    __m512i upper = _mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded(second)), 16);
    return _mm512_or_si512(_mm512_cvtepu16_epi32(rounded(first)), upper);
}

/* sums[j][n] (+)= sum over pairs p of weights[p][j] . columns[p][n], for `LINES` lines j and WIDE columns n. Both
 * vectors of each line stay in registers: a function of its own, since inlined they were put on the stack. */
#define PRODUCT(NAME, LINES)                                                                                        \
    __attribute__((noinline)) AVX512 static void NAME(                                                              \
        const uint32_t *weights, const uint32_t *columns, int count, float *sums, int adds) {                       \
        __m512 total[LINES][2];                                                                                     \
        UNROLL for (int j = 0; j < LINES; j++) {                                                                    \
            total[j][0] = adds ? _mm512_load_ps(sums + j * WIDE) : _mm512_setzero_ps();                             \
            total[j][1] = adds ? _mm512_load_ps(sums + j * WIDE + 16) : _mm512_setzero_ps();                        \
        }                                                                                                           \
        for (int p = 0; p < count; p++, weights += LINES, columns += WIDE) {                                        \
            __m512bh left = (__m512bh)_mm512_load_si512(columns), right = (__m512bh)_mm512_load_si512(columns + 16); \
            UNROLL for (int j = 0; j < LINES; j++) {                                                                \
                __m512bh weight = (__m512bh)_mm512_set1_epi32((int)weights[j]);                                     \
                total[j][0] = _mm512_dpbf16_ps(total[j][0], left, weight);                                          \
                total[j][1] = _mm512_dpbf16_ps(total[j][1], right, weight);                                         \
            }                                                                                                       \
        }                                                                                                           \
        UNROLL for (int j = 0; j < LINES; j++) {                                                                    \
            _mm512_store_ps(sums + j * WIDE, total[j][0]);                                                          \
            _mm512_store_ps(sums + j * WIDE + 16, total[j][1]);                                                     \
        }                                                                                                           \
    }

#endif
