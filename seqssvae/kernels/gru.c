/* r = sigmoid(a_r + W_r h), u = sigmoid(a_u + W_u h), n = tanh(a_n + r (W_n h + bias_n)), h' = n + u (h - n) */
#include "cells.h"

#ifdef HAS_KERNELS
#include "columns.h"

enum { UNITS = 4, INNER = 0, RESET, UPDATE, CANDIDATE };

PRODUCT(product_of_units, 3 * UNITS)
PRODUCT(product_of_gates, 8)

/* One unit's step: its new state. */
INLINE __m512 step(const shape *all, const layer *of, const columns *at, int half, int t, int unit, const float *sums,
                   __m512 state) {
    const int H = all->size, line = unit % UNITS;
    __m512 sum[3];
    UNROLL for (int gate = 0; gate < 3; gate++)
        sum[gate] = _mm512_load_ps(sums + (gate * UNITS + line) * WIDE + 16 * half);
    __m512 reset = sigmoid(add(sum[0], input(all, of, at, half, t, unit)));
    __m512 update = sigmoid(add(sum[1], input(all, of, at, half, t, H + unit)));
    __m512 inner = add(sum[2], _mm512_set1_ps(of->bias_n[unit]));
    __m512 candidate = tangent(_mm512_fmadd_ps(reset, inner, input(all, of, at, half, t, 2 * H + unit)));
    if (of->kept[0]) {
        const int64_t place = place_of(all, at, t, unit);
        give_rounded(at, half, (uint16_t *)of->kept[INNER] + place, inner);
        keep_gate(at, half, (uint16_t *)of->kept[RESET] + place, reset);
        keep_gate(at, half, (uint16_t *)of->kept[UPDATE] + place, update);
        keep_candidate(at, half, (uint16_t *)of->kept[CANDIDATE] + place, candidate);
    }
    return _mm512_fmadd_ps(update, subtract(state, candidate), candidate);
}

AVX512 static void forward(const shape *all, const layer *of, int block, void *scratch) {
    const int H = all->size;
    const columns at = columns_of(all, block);
    uint32_t *before = scratch, *after = before + H / 2 * WIDE;
    float *states = (float *)(after + H / 2 * WIDE), sums[3 * UNITS * WIDE] __attribute__((aligned(64)));
    begin(all, of->first[0], &at, before, states);
    memset(sums, 0, sizeof sums);
    for (int t = 0; t < all->steps; t++) {
        float *outputs = of->outputs + t * all->stride + at.column;
        for (int unit = 0; unit < H; unit += UNITS) {
            for (int gate = 0; gate < 3; gate++)
                for (int i = 0; i < UNITS; i++) fetch_inputs(all, of, &at, t, gate * H + unit + i);
            if (t || of->first[0]) product_of_units(of->packed + (int64_t)unit * 3 * (H / 2), before, H / 2, sums, 0);
            UNROLL for (int half = 0; half < 2; half++) {
                __m512 fresh[UNITS];
                UNROLL for (int i = 0; i < UNITS; i++) {
                    float *state = states + (unit + i) * WIDE + 16 * half;
                    fresh[i] = step(all, of, &at, half, t, unit + i, sums, _mm512_load_ps(state));
                    _mm512_store_ps(state, fresh[i]);
                    give(&at, half, outputs + (int64_t)(unit + i) * all->columns, fresh[i]);
                }
                UNROLL for (int i = 0; i < UNITS; i += 2)
                    _mm512_store_si512(after + (unit + i) / 2 * WIDE + 16 * half, pairs(fresh[i], fresh[i + 1]));
            }
        }
        uint32_t *swap = before;
        before = after, after = swap;
    }
}

/* One unit's step back: writes the gradients of W_n h, r, u and n, leaves u dh in `grad_state`. */
INLINE void step_back(const shape *all, const layer *of, const columns *at, int half, int t, int unit,
                      float *grad_state, float *totals, __m512 *gradients) {
    const int64_t place = place_of(all, at, t, unit), line = (int64_t)unit * all->columns + at->column;
    __m512 inner = recall(at, half, (uint16_t *)of->kept[INNER] + place);
    __m512 reset = recall_gate(at, half, (uint16_t *)of->kept[RESET] + place);
    __m512 update = recall_gate(at, half, (uint16_t *)of->kept[UPDATE] + place);
    __m512 candidate = recall_candidate(at, half, (uint16_t *)of->kept[CANDIDATE] + place);
    const float *from = t ? of->outputs + (t - 1) * all->stride : of->first[0];
    __m512 state = from ? take(at, half, from + line) : _mm512_setzero_ps();
    __m512 gradient = take(at, half, of->grad_outputs + t * all->stride + line);
    gradient = add(gradient, _mm512_load_ps(grad_state + 16 * half));
    __m512 past = multiply(gradient, update);
    _mm512_store_ps(grad_state + 16 * half, past);
    gradients[CANDIDATE] = multiply(subtract(gradient, past), slope_of_tanh(candidate));
    gradients[UPDATE] = multiply(multiply(past, subtract(state, candidate)), one_minus(update));
    gradients[INNER] = multiply(gradients[CANDIDATE], reset);
    gradients[RESET] = multiply(multiply(gradients[INNER], inner), one_minus(reset));
    UNROLL for (int gate = 0; gate < 4; gate++) {
        const int64_t row = (gate == CANDIDATE ? 0 : (int64_t)gate * all->size) + unit;
        uint16_t *to = gate == CANDIDATE ? of->grad_candidate : of->grad_columns;
        give_rounded(at, half, to + (row * all->steps + t) * all->columns + at->column, gradients[gate]);
        if (gate != INNER && of->grad_constant)
            accumulate(totals + ((gate - RESET) * all->size + unit) * WIDE, half, gradients[gate]);
    }
}

/* Add to the gradients of 8 units' states what comes by way of the gates of the step after. */
INLINE void through_weights(const layer *of, int H, const uint32_t *gates, int unit, float *grad_states) {
    product_of_gates(of->packed + (int64_t)unit * 3 * H / 2, gates, 3 * H / 2, grad_states + unit * WIDE, 1);
}

AVX512 static void backward(const shape *all, const layer *of, int block, void *scratch) {
    const int H = all->size;
    const columns at = columns_of(all, block);
    uint32_t *after = scratch, *gates = after + 3 * H / 2 * WIDE; /* pairs of the gradients of W_n h, r and u */
    float *grad_states = (float *)(gates + 3 * H / 2 * WIDE), *totals = grad_states + H * WIDE;
    memset(grad_states, 0, (size_t)4 * H * WIDE * sizeof *totals);
    for (int t = all->steps - 1; t >= 0; t--) {
        for (int unit = 0; unit < H; unit += 8) {
            if (t < all->steps - 1) through_weights(of, H, after, unit, grad_states);
            for (int half = 0; half < 2; half++) {
                for (int i = unit; i < unit + 8; i += 2) {
                    __m512 first[4], second[4];
                    step_back(all, of, &at, half, t, i, grad_states + i * WIDE, totals, first);
                    step_back(all, of, &at, half, t, i + 1, grad_states + (i + 1) * WIDE, totals, second);
                    UNROLL for (int gate = 0; gate < 3; gate++) {
                        uint32_t *to = gates + (gate * H + i) / 2 * WIDE + 16 * half;
                        _mm512_store_si512(to, pairs(first[gate], second[gate]));
                    }
                }
            }
            give_states(all, of, &at, t, unit);
        }
        uint32_t *swap = after;
        after = gates, gates = swap;
    }
    if (all->steps && of->first[0]) /* nobody asks for the gradient of zeros */
        for (int unit = 0; unit < H; unit += 8) through_weights(of, H, after, unit, grad_states);
    finish(all, &at, grad_states, H, of->grad_first[0]);
    finish(all, &at, totals, 3 * H, of->grad_constant);
}

const cell gru = {3, UNITS, 2, 4, forward, backward};

#endif
