#define _GNU_SOURCE /* SEEK_DATA, pwritev */
#define _FILE_OFFSET_BITS 64
#include "io.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "zero.h"

enum {
    PIECE = 1024 * 1024, /* read at once: 8 % less processor time than by 256 KiB */
    VECTORS = 64        /* written at once; more gain nothing, and this much fits the stack */
};

int ic_file_extents(int fd, int64_t length, int64_t volume, size_t room, int64_t *starts,
                    int64_t *stops, struct ic_reach *reach) {
    reach->count = 0;
    while (reach->at < length && volume > 0 && (size_t)reach->count < room) {
        int64_t start = lseek(fd, reach->at, SEEK_DATA);
        if (start < 0 && errno == ENXIO) { /* nothing but a hole up to the end */
            reach->at = length;
            return 0;
        }
        int64_t stop = start < 0 ? -1 : lseek(fd, start, SEEK_HOLE);
        if (stop < 0)
            return errno;
        if (stop > length)
            stop = length;
        if (start < stop) {
            starts[reach->count] = start;
            stops[reach->count++] = stop;
            volume -= stop - start;
        }
        reach->at = stop > reach->at ? stop : length; /* a file that shrinks ends the walk */
    }
    return 0;
}

/* Fills n bytes from file offset `at` on; behind `length` there are zeros. */
static int fill(int fd, int64_t length, uint8_t *p, size_t n, int64_t at, int64_t *failed) {
    while (n) {
        ssize_t got = pread(fd, p, n, at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0 && (got < 0 || at < length)) {
            *failed = at;
            return got < 0 ? errno : IC_END_OF_FILE;
        }
        if (got == 0) {
            memset(p, 0, n);
            return 0;
        }
        p += got;
        n -= (size_t)got;
        at += got;
    }
    return 0;
}

/* How far reading has come in a map: pieces before `piece` lie behind. */
struct course {
    int fd;
    int64_t length;
    const struct ic_map *map;
    size_t piece;
};

/* Fills n bytes from offset `at` of the disk on, which never goes back. */
static int fill_mapped(struct course *c, uint8_t *p, int64_t n, int64_t at, int64_t *failed) {
    const struct ic_map *map = c->map;
    while (n) {
        while (c->piece < map->count && map->stops[c->piece] <= at)
            c->piece++;
        int64_t next = c->piece < map->count ? map->starts[c->piece] : INT64_MAX, size;
        if (next > at) {
            size = lesser(n, next - at);
            memset(p, 0, (size_t)size);
        } else {
            size = lesser(n, map->stops[c->piece] - at);
            int64_t where = map->wheres[c->piece] + at - next;
            int error = fill(c->fd, c->length, p, (size_t)size, where, failed);
            if (error)
                return error;
        }
        p += size, at += size, n -= size;
    }
    return 0;
}

/* The runs found so far, as columns. */
struct runs {
    int64_t *starts, *stops, *wheres;
    int64_t count;
};

/* Adds the data granules of a piece that was read from offset `at` to p, which is
 * `where` in the buffer; returns where in the piece the last of them ends. */
static int64_t find_runs(int kernel, const uint8_t *p, int64_t size, size_t granule, int64_t at,
                         int64_t where, struct runs *runs) {
    int64_t *starts = runs->starts + runs->count, *stops = runs->stops + runs->count;
    int64_t *wheres = runs->wheres + runs->count;
    int64_t found = (int64_t)ic_data_runs(kernel, p, (size_t)size, granule, starts, stops);
    int64_t kept = found ? stops[found - 1] : 0;
    for (int64_t i = 0; i < found; i++) {
        wheres[i] = where + starts[i];
        starts[i] += at;
        stops[i] += at;
    }
    if (found && runs->count && stops[-1] == starts[0] &&
        wheres[-1] - starts[-1] == wheres[0] - starts[0]) { /* goes on where one ended */
        stops[-1] = stops[0];
        size_t rest = (size_t)--found * sizeof *starts;
        memmove(starts, starts + 1, rest);
        memmove(stops, stops + 1, rest);
        memmove(wheres, wheres + 1, rest);
    }
    runs->count += found;
    return kept;
}

int ic_read_runs(int kernel, int fd, int64_t length, const struct ic_map *map, size_t granule,
                 size_t ranges, const int64_t *starts, const int64_t *stops, uint8_t *buffer,
                 int64_t *run_starts, int64_t *run_stops, int64_t *wheres,
                 struct ic_reach *reach) {
    int64_t grain = (int64_t)granule, step = grain < PIECE ? PIECE / grain * grain : grain;
    struct runs runs = {run_starts, run_stops, wheres, 0};
    struct course course = {fd, length, map, 0};
    int64_t used = 0;
    for (size_t i = 0; i < ranges; i++)
        for (int64_t at = starts[i]; at < stops[i]; at += step) {
            int64_t size = lesser(stops[i] - at, step);
            uint8_t *p = buffer + used;
            int error = fill_mapped(&course, p, size, at, &reach->at);
            if (error)
                return error;
            used += find_runs(kernel, p, size, granule, at, used, &runs);
        }
    reach->count = runs.count;
    return 0;
}

/* Writes the n vectors, changing them as they are consumed. */
static int write_all(int fd, struct iovec *vectors, int n, int64_t at, int64_t *failed) {
    while (n) {
        ssize_t put = pwritev(fd, vectors, n, at);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0) {
            *failed = at;
            return put < 0 ? errno : EIO;
        }
        at += put;
        for (; n && (size_t)put >= vectors->iov_len; vectors++, n--)
            put -= (ssize_t)vectors->iov_len;
        if (n) {
            vectors->iov_base = (char *)vectors->iov_base + put;
            vectors->iov_len -= (size_t)put;
        }
    }
    return 0;
}

int ic_write_pieces(int fd, size_t pieces, const int64_t *ats, const int64_t *sizes,
                    const uint64_t *addresses, struct ic_reach *reach) {
    struct iovec vectors[VECTORS];
    for (size_t i = 0; i < pieces;) {
        int64_t start = ats[i], end = start;
        int n = 0;
        for (; i < pieces && n < VECTORS && ats[i] == end; i++, n++) {
            vectors[n].iov_base = (void *)(uintptr_t)addresses[i];
            vectors[n].iov_len = (size_t)sizes[i];
            end += sizes[i];
        }
        int error = write_all(fd, vectors, n, start, &reach->at);
        if (error)
            return error;
    }
    return 0;
}
