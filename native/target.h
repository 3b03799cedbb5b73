/* A file that is being made and that several threads write at once.
 *
 * Linux lets one writer at a time into a file, and on tmpfs most of a write is the making of
 * pages; so two threads take as long as one.  But pages are made also where a mapping of the
 * file lacks them, without that turn, and userfaultfd lets a program fill them in: the kernel
 * makes a page of bytes that it is given (UFFDIO_COPY).  So one thread writes with system
 * calls, and whoever comes meanwhile hands in pages.
 *
 * Nobody ever touches such a mapping.  A file system that is full, a limit, a page that is
 * there already are errors of a system call, never a signal, and what could not be handed in
 * is written: if that fails as well, it says why. */
#ifndef IMGCONV_TARGET_H
#define IMGCONV_TARGET_H

#include <stddef.h>
#include <stdint.h>

#include "io.h"

struct ic_target;

/* Prepares a file, open for reading and writing, that nobody else writes, and whose length
 * does not count yet: it may be made longer, as only there pages can be handed in, and whoever
 * finishes the file sets its length.  Where pages cannot be handed in (any file system but
 * tmpfs; an older kernel; no permission) they are written.  NULL when there is no memory.  fd
 * must last until ic_target_free. */
struct ic_target *ic_target_new(int fd);

/* Writes as ic_write_pieces does, every byte of the file once at most; any number of threads
 * may.  Returns 0 or errno. */
int ic_target_write(struct ic_target *target, size_t pieces, const int64_t *ats,
                    const int64_t *sizes, const uint64_t *addresses, struct ic_reach *reach);

/* The same as the second of two threads does it.  *handed counts the bytes that were not
 * written but handed in. */
int ic_target_hand_in(const struct ic_target *target, size_t pieces, const int64_t *ats,
                      const int64_t *sizes, const uint64_t *addresses, struct ic_reach *reach,
                      int64_t *handed);

/* Forgets a target that nobody writes any more (NULL is fine); the file stays open. */
void ic_target_free(struct ic_target *target);

#endif
