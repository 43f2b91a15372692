#include "parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

typedef struct {
    task work;
    const void *arguments;
    int count;
    size_t scratch;
    atomic_int next, failed;
} job;

static void run(void *given) {
    job *all = given;
    void *scratch = NULL;
    if (all->scratch && !(scratch = aligned_alloc(64, (all->scratch + 63) / 64 * 64))) {
        atomic_store(&all->failed, 1);
        return;
    }
    for (int number; (number = atomic_fetch_add(&all->next, 1)) < all->count;)
        all->work(all->arguments, number, scratch);
    free(scratch);
}

static void *run_thread(void *given) {
    run(given);
    return NULL;
}

int parallel(team of, int threads, task work, const void *arguments, int count, size_t scratch) {
    job all = {.work = work, .arguments = arguments, .count = count, .scratch = scratch};
    if (threads > count) threads = count;
    if (threads > 256) threads = 256;
    if (threads > 1 && of) {
        of(run, &all, (unsigned)threads, 0);
    } else {
        pthread_t others[256];
        int started = 0;
        while (started < threads - 1 && !pthread_create(&others[started], NULL, run_thread, &all)) started++;
        run(&all);
        while (started) pthread_join(others[--started], NULL);
    }
    return atomic_load(&all.failed) ? -1 : 0;
}
