"""Compressing small blocks and back: deflate and zstd, by the fastest library there is.

A level is a number of the codec's own scale; a word stands for one. `deflating.py` has what
compresses to deflate.
"""

import ctypes
from contextlib import suppress
from functools import cache, partial
from typing import Any, NamedTuple, Protocol

from imgconv.deflating import Compress, deflate_library, raw_deflate
from imgconv.errors import OptionError
from imgconv.native import FrameLibrary
from imgconv.workers import PerThread

WORDS = ("fast", "balanced", "small")
_LEVELS = {"zlib": (1, 3, 9), "zstd": (1, 3, 12)}
_MOST = {"zlib": 9, "zstd": 19}  # zstd's higher ones want windows larger than any block
_MIN_WINDOW = 10  # of zstd, as a power of two


def choose_level(codec: str, word: str | None, level: int | None) -> int:
    """Return the level asked for by number or else by word; "balanced" without either.

    Raises OptionError for a level that the codec does not have.
    """
    if level is None:
        return _LEVELS[codec][WORDS.index(word or "balanced")]
    if not 1 <= level <= _MOST[codec]:
        raise OptionError(
            f"compression_level={level}: must be from 1 to {_MOST[codec]} for {codec}"
        )
    return level


def zstd(level: int, largest: int, *, checksum: bool = False) -> Compress:
    """Return a compressor to zstd frames (RFC 8878) with their content size.

    It is set up for blocks of `largest` bytes, a power of two, which is also the history
    that readers must keep. Its tables are twice as large as the library makes them for such
    blocks: these get smaller by one to six thousandths, and hardly slower.
    """
    from zstandard import ZstdCompressionParameters, ZstdCompressor

    from_level = partial(
        ZstdCompressionParameters.from_level,
        level,
        source_size=largest,
        window_log=max(largest.bit_length() - 1, _MIN_WINDOW),
        write_checksum=checksum,
    )
    usual = from_level()
    parameters = from_level(hash_log=usual.hash_log + 1, chain_log=usual.chain_log + 1)
    contexts = PerThread()  # making one costs more than compressing a block with it

    def compress(block: memoryview) -> bytes:
        try:
            context = contexts.own
        except AttributeError:
            context = contexts.own = ZstdCompressor(compression_params=parameters)
        frame: bytes = context.compress(block)
        return frame

    return compress


def codec(name: str, level: int, cluster: int) -> Compress:
    """Return the compressor of clusters: "zlib", which is raw deflate, or "zstd"."""
    return zstd(level, cluster) if name == "zstd" else raw_deflate(level)


def inflate(stream: memoryview, length: int) -> memoryview:
    """Return the first `length` bytes of a raw deflate stream (RFC 1951).

    What follows them, or the stream, does not matter. ValueError for one that is broken or
    has fewer.
    """
    if (whole := _by_libdeflate("deflate_decompress", stream, length)) is not None:
        return whole
    content, _ = _inflated(stream, length, raw=True)
    if len(content) < length:
        raise ValueError(f"ends after {len(content)} of {length} bytes")
    return memoryview(content)


def unzlib(stream: memoryview, least: int, most: int) -> memoryview:
    """Return all of a zlib stream (RFC 1950), whose checksum is verified.

    ValueError for one that is broken, or has fewer than `least` or more than `most` bytes.
    """
    if (whole := _by_libdeflate("zlib_decompress", stream, most)) is not None:
        return whole
    content, ended = _inflated(stream, most + 1, raw=False)
    if not least <= len(content) <= most:
        raise ValueError(f"holds {len(content)} bytes or more in place of {most}")
    if not ended:
        raise ValueError("ends before its checksum")
    return memoryview(content)


def _by_libdeflate(function: str, stream: memoryview, length: int) -> memoryview | None:
    """Decode by the fastest library, which wants to know the exact length, and if that is
    not it, or the stream is broken, says nothing more: None."""
    try:
        import deflate
    except ImportError:
        return None
    try:
        content = memoryview(getattr(deflate, function)(stream, length))
    except deflate.DeflateError:
        return None
    return content if len(content) == length else None


def _inflated(stream: memoryview, most: int, *, raw: bool) -> tuple[bytes, bool]:
    """Decode up to `most` bytes; say whether the stream ended there."""
    library = deflate_library(1)
    wbits = -library.MAX_WBITS if raw else library.MAX_WBITS
    try:
        decoder = library.decompressobj(wbits)
        content: bytes = decoder.decompress(stream, most)
        return content, decoder.eof
    except library.error as error:
        raise ValueError(str(error)) from error


class Inflater:
    """A raw deflate stream (RFC 1951) that is decoded piece by piece, and can be copied.

    By zlib-ng, which unpacks zeros ten times as fast as anything else, or zlib: ISA-L cannot
    be copied. For one thread at a time; the interpreter lock is free meanwhile.
    """

    __slots__ = ("_decoder", "_error")

    def __init__(self, other: "Inflater | None" = None):
        library = deflate_library(_MOST["zlib"])
        self._error: type[Exception] = library.error
        if other is None:
            self._decoder: Any = library.decompressobj(-library.MAX_WBITS)
        else:
            self._decoder = other._decoder.copy()

    @property
    def ended(self) -> bool:
        """Whether that was all of the stream."""
        return bool(self._decoder.eof)

    def decode(self, stream: memoryview, most: int) -> tuple[bytes, int]:
        """Take what comes next of the stream; return up to `most` bytes of its content, and
        how much of what was given they took. ValueError for a stream that is broken."""
        try:
            content: bytes = self._decoder.decompress(stream, most)
        except self._error as error:
            raise ValueError(str(error)) from error
        left = self._decoder.unused_data if self.ended else self._decoder.unconsumed_tail
        return content, len(stream) - len(left)

    def copy(self) -> "Inflater":
        """Return another one that goes on from here; 45 KiB."""
        return Inflater(self)


def gzip_front(front: bytes, length: int) -> bytes:
    """Return the first `length` bytes in the gzip that begins so; fewer, or none, if there
    are fewer or it is broken."""
    import zlib

    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(front, length)
    except zlib.error:
        return b""


class Readable(Protocol):
    """What a stream is read from."""

    def read(self, size: int) -> bytes:
        """Return some bytes, at most so many; none at the end."""
        ...


class FrameHeader(NamedTuple):
    """What a zstd frame says of itself: the length of this, of its content if it is known
    and of the history that it takes, in bytes."""

    length: int
    content: int | None
    window: int
    dictionary: bool
    checksum: bool


def frame_header(front: bytes) -> FrameHeader:
    """Read the header of a zstd frame; ValueError for one that is cut off, or is none."""
    import zstandard

    try:
        found = zstandard.get_frame_parameters(front)
        length = zstandard.frame_header_size(front)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    known = found.content_size != zstandard.CONTENTSIZE_UNKNOWN
    content = found.content_size if known else None
    return FrameHeader(
        length, content, found.window_size, bool(found.dict_id), found.has_checksum
    )


class FrameDecoder:
    """One zstd frame, decoded piece by piece."""

    __slots__ = ("_error", "_reader")

    def __init__(self, stream: Readable, max_window: int):
        import zstandard

        self._error = zstandard.ZstdError
        decoder = zstandard.ZstdDecompressor(max_window_size=max_window)
        self._reader = decoder.stream_reader(stream, closefd=False)  # type: ignore[arg-type]

    def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer, but at the end; return how far. ValueError for a broken frame."""
        try:
            return self._reader.readinto(buffer)
        except self._error as error:
            raise ValueError(str(error)) from error


_MAX_WINDOW = 1 << 23  # of frames that do not say how much they hold


_decoders = PerThread()  # making one takes a fifth of the time of a cluster


def unzstd(stream: memoryview, length: int) -> memoryview:
    """Return the `length` bytes in one or more zstd frames; what follows does not matter.

    ValueError for frames that are broken or hold more or less.
    """
    import zstandard

    try:
        if zstandard.frame_content_size(stream) == length:
            try:
                decoder = _decoders.own
            except AttributeError:
                decoder = _decoders.own = zstandard.ZstdDecompressor()
            return memoryview(decoder.decompress(stream))
        return memoryview(_unzstd_frames(stream, length))
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


# Of zstd.h, in the order in which `FrameLibrary` takes them; all have been stable since 1.4.
_ZSTD_FUNCTIONS = (
    "ZSTD_createDCtx",
    "ZSTD_freeDCtx",
    "ZSTD_getFrameContentSize",
    "ZSTD_findFrameCompressedSize",
    "ZSTD_decompressDCtx",
)


@cache
def system_zstd() -> FrameLibrary | None:
    """Return the system's libzstd, which decodes many frames in one call, or None where there
    is none; `unzstd` wants the interpreter lock back after each."""
    try:
        library = ctypes.CDLL("libzstd.so.1")
        functions = (getattr(library, name) for name in _ZSTD_FUNCTIONS)
        addresses = [
            ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions
        ]
    except (OSError, AttributeError):
        return None
    return FrameLibrary(*addresses)


def _unzstd_frames(stream: memoryview, length: int) -> bytes:
    """Decode step by step, so that frames that promise too much cost no memory."""
    import zstandard

    decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    content = bytearray()
    with decoder.stream_reader(stream, read_across_frames=True) as reader:
        while len(content) < length and (piece := reader.read(length - len(content))):
            content += piece
        if len(content) < length:
            raise ValueError(f"ends after {len(content)} of {length} bytes")
        with suppress(zstandard.ZstdError):
            if reader.read(1):
                raise ValueError(f"holds more than {length} bytes")
    return bytes(content)
