/* What a cell does with WIDE columns of a layer, through all steps. */
#ifndef SEQSSVAE_CELLS_H
#define SEQSSVAE_CELLS_H

#include "recurrence.h"

/* Whether the compiler knows the instructions. */
#if defined(__x86_64__) && !defined(WITHOUT_KERNELS) && \
    ((defined(__GNUC__) && __GNUC__ >= 10) || (defined(__clang__) && __clang_major__ >= 9))
#define HAS_KERNELS 1
#endif

typedef struct {
    int gates;         /* G / H */
    int units;         /* whose gates are made by one product */
    int forward_lines; /* of scratch memory, WIDE numbers each, for each unit */
    int backward_lines;
    void (*forward)(const shape *, const layer *, int block, void *scratch);
    void (*backward)(const shape *, const layer *, int block, void *scratch);
} cell;

extern const cell gru, lstm;

#endif
