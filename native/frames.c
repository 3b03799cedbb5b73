#include "frames.h"

static int decode_frame(const struct ic_zstd *zstd, void *context, const uint8_t *stream,
                        size_t length, uint8_t *content, size_t size) {
    if (zstd->content_size(stream, length) != size)
        return 0;
    /* An error is a size larger than any: it is more than the stream has. */
    size_t used = zstd->frame_size(stream, length);
    return used <= length && zstd->decode(context, content, size, stream, used) == size;
}

size_t ic_decode_frames(const struct ic_zstd *zstd, size_t frames, const uint8_t *streams,
                        const int64_t *wheres, const int64_t *lengths, uint8_t *buffer,
                        const int64_t *places, const int64_t *sizes) {
    size_t done = 0;
    /* Made anew for every batch, which costs a thousandth of it, nobody has to keep it. */
    void *context = zstd->create();
    if (context == NULL)
        return 0;
    while (done < frames &&
           decode_frame(zstd, context, streams + wheres[done], (size_t)lengths[done],
                        buffer + places[done], (size_t)sizes[done]))
        done++;
    zstd->destroy(context);
    return done;
}
