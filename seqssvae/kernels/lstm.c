/* i, f, g, o = a + W h, c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c') */
#include "cells.h"

#ifdef HAS_KERNELS
#include "columns.h"

enum { UNITS = 2, ENTER = 0, FORGET, VALUE, LEAVE, CELL };

PRODUCT(product_of_units, 4 * UNITS)
PRODUCT(product_of_gates, 8)

/* One unit's step: its new output; its cell is replaced. */
INLINE __m512 step(const shape *all, const layer *of, const columns *at, int half, int t, int unit, const float *sums,
                   float *memory) {
    const int line = unit % UNITS;
    __m512 gates[4];
    UNROLL for (int gate = 0; gate < 4; gate++) {
        __m512 sum = _mm512_load_ps(sums + (gate * UNITS + line) * WIDE + 16 * half);
        gates[gate] = add(sum, input(all, of, at, half, t, gate * all->size + unit));
        gates[gate] = gate == VALUE ? tangent(gates[gate]) : sigmoid(gates[gate]);
    }
    __m512 fresh = multiply(gates[FORGET], _mm512_load_ps(memory + 16 * half));
    fresh = _mm512_fmadd_ps(gates[ENTER], gates[VALUE], fresh);
    _mm512_store_ps(memory + 16 * half, fresh);
    if (of->kept[0]) {
        const int64_t place = place_of(all, at, t, unit);
        keep_gate(at, half, (uint16_t *)of->kept[ENTER] + place, gates[ENTER]);
        keep_gate(at, half, (uint16_t *)of->kept[FORGET] + place, gates[FORGET]);
        keep_candidate(at, half, (uint16_t *)of->kept[VALUE] + place, gates[VALUE]);
        keep_gate(at, half, (uint16_t *)of->kept[LEAVE] + place, gates[LEAVE]);
        give(at, half, (float *)of->kept[CELL] + place, fresh);
    }
    return multiply(gates[LEAVE], tangent(fresh));
}

AVX512 static void forward(const shape *all, const layer *of, int block, void *scratch) {
    const int H = all->size;
    const columns at = columns_of(all, block);
    uint32_t *before = scratch, *after = before + H / 2 * WIDE;
    float *states = (float *)(after + H / 2 * WIDE), sums[4 * UNITS * WIDE] __attribute__((aligned(64)));
    begin(all, of->first[0], &at, before, states);
    begin(all, of->first[1], &at, NULL, states);
    memset(sums, 0, sizeof sums);
    for (int t = 0; t < all->steps; t++) {
        float *outputs = of->outputs + t * all->stride + at.column;
        for (int unit = 0; unit < H; unit += UNITS) {
            for (int gate = 0; gate < 4; gate++)
                for (int i = 0; i < UNITS; i++) fetch_inputs(all, of, &at, t, gate * H + unit + i);
            if (t || of->first[0]) product_of_units(of->packed + (int64_t)unit * 4 * (H / 2), before, H / 2, sums, 0);
            UNROLL for (int half = 0; half < 2; half++) {
                __m512 fresh[UNITS];
                UNROLL for (int i = 0; i < UNITS; i++) {
                    fresh[i] = step(all, of, &at, half, t, unit + i, sums, states + (unit + i) * WIDE);
                    give(&at, half, outputs + (int64_t)(unit + i) * all->columns, fresh[i]);
                }
                _mm512_store_si512(after + unit / 2 * WIDE + 16 * half, pairs(fresh[0], fresh[1]));
            }
        }
        uint32_t *swap = before;
        before = after, after = swap;
    }
}

/* One unit's step back: writes the gradients of i, f, g and o, leaves that of the cell before. */
INLINE void step_back(const shape *all, const layer *of, const columns *at, int half, int t, int unit,
                      const float *grad_state, float *grad_cell, float *totals, __m512 *gradients) {
    const int64_t place = place_of(all, at, t, unit), line = (int64_t)unit * all->columns + at->column;
    const float *cells = of->kept[CELL];
    __m512 gates[4], shown = tangent(take(at, half, cells + place));
    gates[ENTER] = recall_gate(at, half, (uint16_t *)of->kept[ENTER] + place);
    gates[FORGET] = recall_gate(at, half, (uint16_t *)of->kept[FORGET] + place);
    gates[VALUE] = recall_candidate(at, half, (uint16_t *)of->kept[VALUE] + place);
    gates[LEAVE] = recall_gate(at, half, (uint16_t *)of->kept[LEAVE] + place);
    __m512 memory = _mm512_setzero_ps();
    if (t) memory = take(at, half, cells + place_of(all, at, t - 1, unit));
    else if (of->first[1]) memory = take(at, half, of->first[1] + line);
    __m512 gradient = take(at, half, of->grad_outputs + t * all->stride + line);
    gradient = add(gradient, _mm512_load_ps(grad_state + 16 * half));
    gradients[LEAVE] = multiply(multiply(gradient, shown), multiply(gates[LEAVE], one_minus(gates[LEAVE])));
    __m512 of_cell = multiply(multiply(gradient, gates[LEAVE]), slope_of_tanh(shown));
    of_cell = add(of_cell, _mm512_load_ps(grad_cell + 16 * half));
    gradients[ENTER] = multiply(multiply(of_cell, gates[VALUE]), multiply(gates[ENTER], one_minus(gates[ENTER])));
    gradients[FORGET] = multiply(multiply(of_cell, memory), multiply(gates[FORGET], one_minus(gates[FORGET])));
    gradients[VALUE] = multiply(multiply(of_cell, gates[ENTER]), slope_of_tanh(gates[VALUE]));
    _mm512_store_ps(grad_cell + 16 * half, multiply(of_cell, gates[FORGET]));
    UNROLL for (int gate = 0; gate < 4; gate++) {
        int64_t to = (((int64_t)gate * all->size + unit) * all->steps + t) * all->columns + at->column;
        give_rounded(at, half, of->grad_columns + to, gradients[gate]);
        if (of->grad_constant) accumulate(totals + (gate * all->size + unit) * WIDE, half, gradients[gate]);
    }
}

/* The gradients of 8 units' outputs that come by way of the gates of the step after. */
INLINE void through_weights(const layer *of, int H, const uint32_t *gates, int unit, float *grad_states) {
    product_of_gates(of->packed + (int64_t)unit * 2 * H, gates, 2 * H, grad_states + unit * WIDE, 0);
}

AVX512 static void backward(const shape *all, const layer *of, int block, void *scratch) {
    const int H = all->size;
    const columns at = columns_of(all, block);
    uint32_t *after = scratch, *gates = after + 2 * H * WIDE; /* pairs of their gradients */
    float *grad_states = (float *)(gates + 2 * H * WIDE), *grad_cells = grad_states + H * WIDE;
    float *totals = grad_cells + H * WIDE;
    memset(grad_states, 0, (size_t)6 * H * WIDE * sizeof *totals);
    for (int t = all->steps - 1; t >= 0; t--) {
        for (int unit = 0; unit < H; unit += 8) {
            if (t < all->steps - 1) through_weights(of, H, after, unit, grad_states);
            for (int half = 0; half < 2; half++) {
                for (int i = unit; i < unit + 8; i += 2) {
                    __m512 first[4], second[4];
                    float *grad_state = grad_states + i * WIDE, *grad_cell = grad_cells + i * WIDE;
                    step_back(all, of, &at, half, t, i, grad_state, grad_cell, totals, first);
                    step_back(all, of, &at, half, t, i + 1, grad_state + WIDE, grad_cell + WIDE, totals, second);
                    UNROLL for (int gate = 0; gate < 4; gate++) {
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
    finish(all, &at, grad_cells, H, of->grad_first[1]);
    finish(all, &at, totals, 4 * H, of->grad_constant);
}

const cell lstm = {4, UNITS, 2, 6, forward, backward};

#endif
