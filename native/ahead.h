/* Reading ahead of a file from its front, in threads of its own.
 *
 * Takes data ranges in order and scans them as ic_read_runs does, until it is told to end,
 * or its memory is used up, or something fails: then what it knows is a prefix of the file,
 * and whoever reads the rest finds out the same. */
#ifndef IMGCONV_AHEAD_H
#define IMGCONV_AHEAD_H

#include <stddef.h>
#include <stdint.h>

struct ic_ahead;

/* One run of data granules: file offsets [start, stop), bytes at arena + where. */
struct ic_run {
    int64_t start, stop, where;
};

/* Begins to read a file of `length` bytes, whose last sector ends at `size` as zeros, into
 * the arena of `room` bytes.  With `full`, all of it is taken for data; otherwise SEEK_DATA
 * and SEEK_HOLE tell.  Granules are IC_AHEAD_GRANULE bytes.  NULL when there is no memory or
 * no thread.  fd and arena must last until ic_ahead_end. */
enum { IC_AHEAD_GRANULE = 4096 };
struct ic_ahead *ic_ahead_begin(int kernel, int fd, int64_t length, int64_t size, int full,
                                int threads, uint8_t *arena, size_t room);

/* Ends the reading and waits for it.  Returns the offset up to which everything is known. */
int64_t ic_ahead_end(struct ic_ahead *ahead);

/* The runs found below that offset, ascending; valid until ic_ahead_free. */
const struct ic_run *ic_ahead_runs(const struct ic_ahead *ahead, size_t *count);

/* Forgets an ended reading (NULL is fine). */
void ic_ahead_free(struct ic_ahead *ahead);

#endif
