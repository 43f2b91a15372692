/* Tasks that know nothing of each other, spread over threads. */
#ifndef SEQSSVAE_PARALLEL_H
#define SEQSSVAE_PARALLEL_H

#include <stddef.h>

/* As GOMP_parallel: calls a function with its argument once in each of so many threads. */
typedef void (*team)(void (*)(void *), void *, unsigned threads, unsigned flags);

/* A task by its number, with scratch memory of its own, 64-byte aligned. */
typedef void (*task)(const void *arguments, int number, void *scratch);

/* Do tasks 0 to count - 1, each once. `threads` may be more than there are; with `of` NULL, threads are made for the
 * call. Returns 0, or -1 where there was no memory for a thread (then tasks may not be done). */
int parallel(team of, int threads, task work, const void *arguments, int count, size_t scratch);

#endif
