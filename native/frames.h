/* Decoding compressed blocks by the batch: one crossing from Python stands for many blocks,
 * each of which would have to wait for the interpreter lock again. */
#ifndef IMGCONV_FRAMES_H
#define IMGCONV_FRAMES_H

#include <stddef.h>
#include <stdint.h>

/* The functions of libzstd (zstd.h) that decode; whoever loads the library hands them in. */
struct ic_zstd {
    void *(*create)(void);                                         /* ZSTD_createDCtx */
    size_t (*destroy)(void *context);                              /* ZSTD_freeDCtx */
    unsigned long long (*content_size)(const void *, size_t);      /* ZSTD_getFrameContentSize */
    size_t (*frame_size)(const void *, size_t);                    /* ZSTD_findFrameCompressedSize */
    size_t (*decode)(void *, void *, size_t, const void *, size_t); /* ZSTD_decompressDCtx */
};

/* Decodes frames, each by itself: frame i is in the `lengths[i]` bytes at streams +
 * wheres[i], whatever follows it there, and its content goes to buffer + places[i].  Ends at
 * the first that is broken or does not say that it holds exactly `sizes[i]` bytes, of which
 * nothing but those bytes of the buffer may have changed.  Returns how many it decoded. */
size_t ic_decode_frames(const struct ic_zstd *zstd, size_t frames, const uint8_t *streams,
                        const int64_t *wheres, const int64_t *lengths, uint8_t *buffer,
                        const int64_t *places, const int64_t *sizes);

#endif
