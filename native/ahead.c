#define _GNU_SOURCE /* SEEK_DATA */
#define _FILE_OFFSET_BITS 64
#include "ahead.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "io.h"

enum {
    GRANULE = IC_AHEAD_GRANULE,
    STEP = 1024 * 1024, /* what a thread takes at once */
    MAX_THREADS = 16,
    MAX_RUNS = STEP / GRANULE / 2 + 2 /* in one step */
};

struct ic_ahead {
    int kernel, fd;
    int64_t length, size;
    uint8_t *arena;
    size_t room;
    pthread_t threads[MAX_THREADS];
    int started;

    pthread_mutex_t lock; /* of all that follows */
    int64_t at, stop;     /* the data range that is being handed out */
    int64_t reach;        /* where the first stretch begins that was taken and not done */
    size_t taken;         /* of the arena */
    int ended;            /* nothing more is handed out */
    struct ic_run *runs;
    size_t count;
};

/* Finds the next data range, widened to granules. */
static int next_range(struct ic_ahead *a) {
    struct ic_reach reach = {0, a->stop};
    int64_t start = 0, stop = 0;
    if (reach.at >= a->length ||
        ic_file_extents(a->fd, a->length, 1, 1, &start, &stop, &reach) != 0)
        return 0;
    if (reach.count == 0) { /* a hole up to the end */
        a->at = a->stop = a->size;
        return 0;
    }
    start = start / GRANULE * GRANULE;
    a->at = start > a->stop ? start : a->stop;
    a->stop = lesser((stop + GRANULE - 1) / GRANULE * GRANULE, a->size);
    return 1;
}

/* Hands out a stretch and, if fewer than its bytes are `left`, memory for it. */
static int take(struct ic_ahead *a, int64_t *start, int64_t *stop, size_t *where, size_t *left) {
    pthread_mutex_lock(&a->lock);
    while (!a->ended && a->at == a->stop)
        a->ended = !next_range(a);
    if (!a->ended) {
        *start = a->at;
        *stop = lesser(a->at + STEP, a->stop);
        if (*left < (size_t)(*stop - *start)) {
            a->ended = a->room - a->taken < STEP;
            *where = a->taken;
            *left = STEP;
            a->taken += a->ended ? 0 : STEP;
        }
    }
    if (!a->ended)
        a->at = *stop;
    int got = !a->ended;
    pthread_mutex_unlock(&a->lock);
    return got;
}

/* Notes what was found in a stretch, or that it could not be read. */
static void note(struct ic_ahead *a, int failed, int64_t start, const struct ic_run *runs,
                 int64_t count) {
    pthread_mutex_lock(&a->lock);
    if (failed) {
        a->ended = 1;
        a->reach = lesser(a->reach, start);
    }
    for (int64_t i = 0; i < count; i++)
        a->runs[a->count++] = runs[i];
    pthread_mutex_unlock(&a->lock);
}

static void *work(void *of) {
    struct ic_ahead *a = of;
    int64_t start, stop, starts[MAX_RUNS], stops[MAX_RUNS], wheres[MAX_RUNS];
    size_t where = 0, left = 0;
    while (take(a, &start, &stop, &where, &left)) {
        struct ic_run runs[MAX_RUNS];
        struct ic_reach reach = {0, 0};
        const int64_t from = 0, to = INT64_MAX; /* the file is the disk */
        const struct ic_map map = {1, &from, &to, &from};
        int failed = ic_read_runs(a->kernel, a->fd, a->length, &map, GRANULE, 1, &start, &stop,
                                  a->arena + where, starts, stops, wheres, &reach);
        size_t used = 0;
        for (int64_t i = 0; i < reach.count && !failed; i++) {
            runs[i] = (struct ic_run){starts[i], stops[i], (int64_t)where + wheres[i]};
            used = (size_t)(wheres[i] + stops[i] - starts[i]);
        }
        note(a, failed, start, runs, failed ? 0 : reach.count);
        where += used;
        left -= used;
    }
    return NULL;
}

struct ic_ahead *ic_ahead_begin(int kernel, int fd, int64_t length, int64_t size, int full,
                                int threads, uint8_t *arena, size_t room) {
    struct ic_ahead *a = calloc(1, sizeof *a);
    if (a == NULL)
        return NULL;
    a->kernel = kernel, a->fd = fd, a->length = length, a->size = size;
    a->arena = arena, a->room = room, a->reach = INT64_MAX;
    a->stop = full ? size : 0;
    /* Every run has a granule of the arena to itself, but the one at the end of the file. */
    a->runs = malloc((room / GRANULE + 1) * sizeof *a->runs);
    pthread_mutex_init(&a->lock, NULL);
    sigset_t all, before;
    sigfillset(&all); /* signals are for the threads of whoever called */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; a->runs != NULL && i < threads && i < MAX_THREADS; i++)
        a->started += pthread_create(&a->threads[a->started], NULL, work, a) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (a->started)
        return a;
    ic_ahead_free(a);
    return NULL;
}

static int by_start(const void *a, const void *b) {
    const struct ic_run *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

int64_t ic_ahead_end(struct ic_ahead *a) {
    pthread_mutex_lock(&a->lock);
    a->ended = 1;
    pthread_mutex_unlock(&a->lock);
    while (a->started)
        pthread_join(a->threads[--a->started], NULL);
    a->reach = lesser(a->reach, a->at);
    qsort(a->runs, a->count, sizeof *a->runs, by_start);
    while (a->count && a->runs[a->count - 1].start >= a->reach)
        a->count--;
    return a->reach;
}

const struct ic_run *ic_ahead_runs(const struct ic_ahead *a, size_t *count) {
    *count = a->count;
    return a->runs;
}

void ic_ahead_free(struct ic_ahead *a) {
    if (a == NULL)
        return;
    pthread_mutex_destroy(&a->lock);
    free(a->runs);
    free(a);
}
