#define _GNU_SOURCE /* O_CLOEXEC, syscall */
#define _FILE_OFFSET_BITS 64
#include "target.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef UFFD_USER_MODE_ONLY /* Linux 5.11; needs no privilege, and older ones refuse it */
#define UFFD_USER_MODE_ONLY 1
#endif

static const long TMPFS = 0x01021994;
static const int64_t LENGTH = INT64_C(1) << 46; /* what lies behind is written */
static const int64_t SPAN = INT64_C(1) << 40;   /* of file offsets that are mapped at once */
static const int64_t LEAST = 32 * 1024;         /* a piece that is worth page tables */

struct ic_target {
    int fd;
    int faults;              /* the userfaultfd, -1 when pages cannot be handed in */
    int64_t page;            /* bytes */
    pthread_mutex_t writing; /* held by the thread that writes with system calls */
};

static int open_faults(int fd, int64_t page) {
    struct statfs about;
    /* Where tmpfs may take huge pages for files of that length, it would for every hole. */
    if (fstatfs(fd, &about) != 0 || (long)about.f_type != TMPFS || about.f_bsize != page)
        return -1;
    int faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    struct uffdio_api api = {.api = UFFD_API};
    if (faults < 0 || (ioctl(faults, UFFDIO_API, &api) == 0 && ftruncate(fd, LENGTH) == 0))
        return faults;
    close(faults);
    return -1;
}

struct ic_target *ic_target_new(int fd) {
    struct ic_target *t = malloc(sizeof *t);
    if (t == NULL)
        return NULL;
    t->fd = fd;
    t->page = sysconf(_SC_PAGESIZE);
    t->faults = open_faults(fd, t->page);
    pthread_mutex_init(&t->writing, NULL);
    return t;
}

void ic_target_free(struct ic_target *t) {
    if (t == NULL)
        return;
    if (t->faults >= 0)
        close(t->faults);
    pthread_mutex_destroy(&t->writing);
    free(t);
}

/* A stretch of the file, mapped where nobody looks. */
struct window {
    int64_t start, stop; /* file offsets; empty when there is none */
    uint8_t *memory;
};

static struct window open_window(const struct ic_target *t, int64_t start, int64_t stop) {
    struct window none = {0, 0, NULL}, window = {start / t->page * t->page, stop, NULL};
    if (stop > LENGTH || stop - window.start > SPAN)
        return none;
    size_t size = (size_t)(stop - window.start);
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, t->fd,
                   (off_t)window.start);
    if (p == MAP_FAILED)
        return none;
    uint64_t whole = (uint64_t)((stop - window.start + t->page - 1) / t->page * t->page);
    struct uffdio_register missing = {.range = {(uint64_t)(uintptr_t)p, whole},
                                      .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(t->faults, UFFDIO_REGISTER, &missing) != 0) {
        munmap(p, size);
        return none;
    }
    window.memory = p;
    return window;
}

static void close_window(const struct window *window) {
    if (window->memory != NULL) /* takes page tables along; the pages stay in the file */
        munmap(window->memory, (size_t)(window->stop - window->start));
}

/* Hands in what it can of n bytes, whole pages of them, to file offset `at`. */
static int64_t hand_in(const struct ic_target *t, const struct window *window, int64_t at,
                       int64_t n, uint64_t from) {
    int64_t done = 0;
    while (done < n) {
        struct uffdio_copy copy = {
            .dst = (uint64_t)(uintptr_t)(window->memory + (at - window->start) + done),
            .src = from + (uint64_t)done,
            .len = (uint64_t)(n - done),
            .mode = UFFDIO_COPY_MODE_DONTWAKE, /* nobody sleeps for want of a page */
        };
        if (ioctl(t->faults, UFFDIO_COPY, &copy) != 0 && copy.copy <= 0)
            break;
        done += copy.copy;
    }
    return done;
}

/* Pieces of a stretch that are left to be written, ascending.  Each write may have to wait for
 * that of another thread, so they are kept, and those that lie together are written at once. */
enum { RESTS = 64 };
struct rests {
    size_t count;
    int64_t ats[RESTS], sizes[RESTS];
    uint64_t addresses[RESTS];
};

static int write_rests(const struct ic_target *t, struct rests *rests, struct ic_reach *reach) {
    size_t count = rests->count;
    rests->count = 0;
    return ic_write_pieces(t->fd, count, rests->ats, rests->sizes, rests->addresses, reach);
}

static int keep(const struct ic_target *t, struct rests *rests, int64_t at, int64_t size,
                uint64_t from, struct ic_reach *reach) {
    int error = rests->count == RESTS ? write_rests(t, rests, reach) : 0;
    if (size == 0 || error)
        return error;
    rests->ats[rests->count] = at;
    rests->sizes[rests->count] = size;
    rests->addresses[rests->count++] = from;
    return 0;
}

int ic_target_hand_in(const struct ic_target *t, size_t pieces, const int64_t *ats,
                      const int64_t *sizes, const uint64_t *addresses, struct ic_reach *reach,
                      int64_t *handed) {
    struct window window = {0, 0, NULL};
    if (t->faults >= 0 && pieces)
        window = open_window(t, ats[0], ats[pieces - 1] + sizes[pieces - 1]);
    *handed = 0;
    struct rests rests;
    rests.count = 0;
    int error = 0;
    for (size_t i = 0; i < pieces && !error; i++) {
        int64_t at = ats[i], stop = at + sizes[i], first = stop, last = stop;
        if (window.memory != NULL && sizes[i] >= LEAST) { /* its whole pages, if it has any */
            first = lesser((at + t->page - 1) / t->page * t->page, stop);
            last = first + (stop - first) / t->page * t->page;
            last = first + hand_in(t, &window, first, last - first,
                                   addresses[i] + (uint64_t)(first - at));
            *handed += last - first;
        }
        uint64_t behind = addresses[i] + (uint64_t)(last - at);
        error = keep(t, &rests, at, first - at, addresses[i], reach);
        if (!error)
            error = keep(t, &rests, last, stop - last, behind, reach);
    }
    if (!error)
        error = write_rests(t, &rests, reach);
    close_window(&window);
    return error;
}

int ic_target_write(struct ic_target *t, size_t pieces, const int64_t *ats,
                    const int64_t *sizes, const uint64_t *addresses, struct ic_reach *reach) {
    if (t->faults >= 0 && pthread_mutex_trylock(&t->writing) != 0) {
        int64_t handed;
        return ic_target_hand_in(t, pieces, ats, sizes, addresses, reach, &handed);
    }
    int error = ic_write_pieces(t->fd, pieces, ats, sizes, addresses, reach);
    if (t->faults >= 0)
        pthread_mutex_unlock(&t->writing);
    return error;
}
