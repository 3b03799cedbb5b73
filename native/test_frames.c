/* Tests of frames.c: where it reads and writes, and where it ends.  The frames are those of a
 * toy, a byte for the length of what follows; libzstd's own are decoded by tests/. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frames.h"

static int contexts, broken_memory;

static void *create(void) {
    contexts += !broken_memory;
    return broken_memory ? NULL : malloc(1);
}

static size_t destroy(void *context) {
    contexts--;
    free(context);
    return 0;
}

static unsigned long long content_size(const void *stream, size_t length) {
    return length ? *(const uint8_t *)stream : (unsigned long long)-2;
}

static size_t frame_size(const void *stream, size_t length) {
    size_t size = 1 + (size_t)*(const uint8_t *)stream;
    return size <= length ? size : (size_t)-72;
}

/* Content that begins with 0xff is broken. */
static size_t decode(void *context, void *content, size_t size, const void *stream,
                     size_t length) {
    const uint8_t *from = (const uint8_t *)stream + 1;
    assert(context != NULL && length == size + 1);
    if (size && *from == 0xff)
        return (size_t)-20;
    memcpy(content, from, size);
    return size;
}

static const struct ic_zstd toy = {create, destroy, content_size, frame_size, decode};

enum { FRAMES = 5, LONGEST = 9 };

/* Decodes FRAMES frames of `sizes[i]` bytes, of which number `odd` has a `first` byte and a
 * length of its own, out of memory and into memory that is exactly as large as it must be. */
static size_t decoded(int odd, uint8_t first, uint8_t says, int64_t cut) {
    int64_t sizes[FRAMES] = {3, 0, LONGEST, 1, 2}, lengths[FRAMES], wheres[FRAMES], places[FRAMES];
    int64_t room = 0, total = 0;
    for (int i = 0; i < FRAMES; i++) {
        lengths[i] = sizes[i] + 1 - (i == odd ? cut : 0);
        wheres[i] = room, room += lengths[i];
        total += sizes[i], places[i] = 15 - total; /* the other way round */
    }
    uint8_t *streams = malloc((size_t)room), *buffer = malloc((size_t)total);
    assert(streams && buffer && total == 15);
    memset(buffer, 0xee, (size_t)total);
    for (int i = 0; i < FRAMES; i++) {
        uint8_t *stream = streams + wheres[i];
        memset(stream, 'a' + i, (size_t)lengths[i]);
        if (lengths[i] > 0)
            stream[0] = i == odd ? says : (uint8_t)sizes[i];
        if (lengths[i] > 1 && i == odd)
            stream[1] = first;
    }
    size_t done = ic_decode_frames(&toy, FRAMES, streams, wheres, lengths, buffer, places, sizes);
    for (int i = 0; i < FRAMES; i++)
        for (int64_t at = 0; at < sizes[i]; at++)
            assert(buffer[places[i] + at] == ((size_t)i < done ? 'a' + i : 0xee));
    free(streams), free(buffer);
    assert(contexts == 0);
    return done;
}

int main(void) {
    assert(decoded(-1, 0, 0, 0) == FRAMES);
    assert(decoded(2, 0xff, LONGEST, 0) == 2);    /* broken */
    assert(decoded(2, 'c', LONGEST - 1, 0) == 2); /* holds another number of bytes */
    assert(decoded(2, 'c', LONGEST, 1) == 2);     /* cut off */
    assert(decoded(0, 'a', 3, 4) == 0);           /* nothing at all */
    assert(decoded(4, 0xff, 2, 0) == 4);
    broken_memory = 1;
    assert(decoded(-1, 0, 0, 0) == 0);
    assert(ic_decode_frames(&toy, 0, NULL, NULL, NULL, NULL, NULL, NULL) == 0);
    puts("frames         ok");
    return 0;
}
