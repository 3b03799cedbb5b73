/* Positional file input and output by the batch: one crossing from Python stands for many
 * system calls.
 *
 * Offsets and lengths are in bytes.  A function that fails says at which file offset; what
 * was interrupted by a signal is simply done again. */
#ifndef IMGCONV_IO_H
#define IMGCONV_IO_H

#include <stddef.h>
#include <stdint.h>

static inline int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

/* The file ended before the offset it should reach; no value of errno. */
enum { IC_END_OF_FILE = -1 };

/* How far a call came: `count` results, and the file offset it stopped or failed at. */
struct ic_reach {
    int64_t count;
    int64_t at;
};

/* Walks the data ranges of a file of `length` bytes from reach->at on, with SEEK_DATA and
 * SEEK_HOLE, until it has `room` of them, or `volume` bytes in them, or is at the end.
 * Returns 0 or errno. */
int ic_file_extents(int fd, int64_t length, int64_t volume, size_t room, int64_t *starts,
                    int64_t *stops, struct ic_reach *reach);

/* Where a disk is in a file: piece i of it, [starts[i], stops[i]), begins at file offset
 * wheres[i].  Pieces ascend and are apart; between them the disk is zeros. */
struct ic_map {
    size_t count;
    const int64_t *starts, *stops, *wheres;
};

/* Reads ranges of a disk back to back into a buffer and finds their granules that hold a
 * nonzero byte; forgets at once the zeros behind the last of them, so that a long stretch of
 * zeros passes through a few cache lines.
 *
 * Range i is [starts[i], stops[i]); starts are multiples of `granule`.  The buffer must hold
 * all ranges.  What lies behind `length`, where the file ends, reads as zeros.  Run i covers
 * offsets [run_starts[i], run_stops[i]) of the disk and lies at buffer + wheres[i]; there is
 * room for half as many runs as granules, and for one more per range.  reach->count is the
 * number of runs.  Returns 0, errno or IC_END_OF_FILE. */
int ic_read_runs(int kernel, int fd, int64_t length, const struct ic_map *map, size_t granule,
                 size_t ranges, const int64_t *starts, const int64_t *stops, uint8_t *buffer,
                 int64_t *run_starts, int64_t *run_stops, int64_t *wheres,
                 struct ic_reach *reach);

/* Writes pieces of memory to a file: piece i, sizes[i] bytes at addresses[i], to offset
 * ats[i].  Neighbours share a system call.  Returns 0 or errno. */
int ic_write_pieces(int fd, size_t pieces, const int64_t *ats, const int64_t *sizes,
                    const uint64_t *addresses, struct ic_reach *reach);

#endif
