"""Compressing to deflate: which library for which level, and for which block.

ISA-L is the fastest by far; zlib-ng, where the history is short, and libdeflate, where it is
full, make less of what repeats itself: of records and machine code more than of texts, and
nothing of what is compressed already. So at low levels two of them share the work, and how
many bytes of a block equal the one four before says which of them has it. Nothing else
does, so that the same blocks always give the same bytes. What each pair is worth stands in
`benchmarks/README.md`.

Where a library is not installed zlib does it: every level always works, the same block then
takes other bytes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from imgconv.native import repeats

Compress: TypeAlias = Callable[[memoryview], bytes]  # safe from any number of threads

_ISAL_LEVELS = 3
_BY_ADDRESS = 2  # levels of ISA-L with the fault that `_in_two` is for
_HEAD = 8  # bytes: fewer than the routine with the fault takes
_SHORT, _FULL = 12, 15  # of history, as powers of two
_PERIOD = 4  # bytes, of records and tables


def raw_deflate(level: int) -> Compress:
    """Return a compressor to raw deflate (RFC 1951) with a history of 4 KiB."""
    if level in (1, 2):  # ISA-L's own 1 is as slow as its 2, and larger
        return _zlib_like(level + 1, -_SHORT)
    if level == 3:
        return _by_repeats(_zlib_like(3, -_SHORT), 0.06, _zlib_like(4, -_SHORT))
    return _zlib_like(level, -_SHORT)


def zlib_stream(level: int) -> Compress:
    """Return a compressor to zlib streams (RFC 1950) with all the history deflate has."""
    if level == 1:
        return _by_repeats(_zlib_like(2, _FULL), 0.07, _libdeflate(2))
    if level == 2:
        return _by_repeats(_zlib_like(2, _FULL), 0.07, _libdeflate(5))
    if level == 3:
        return _by_repeats(_zlib_like(2, _FULL), 0.055, _libdeflate(5))
    return _libdeflate(level)


def _by_repeats(few: Compress, share: float, many: Compress) -> Compress:
    """Return a compressor that gives a block of which at least this share repeats to
    `many`, and others to `few`."""

    def compress(block: memoryview) -> bytes:
        chosen = many if repeats(block, _PERIOD) >= share * len(block) else few
        return chosen(block)

    return compress


def _zlib_like(level: int, wbits: int) -> Compress:
    library = deflate_library(level)
    if level > _BY_ADDRESS:
        return partial(library.compress, level=level, wbits=wbits)

    def compress(block: memoryview) -> bytes:
        packed = _in_two(library, level, wbits, library.Z_FINISH, block)
        if len(packed) <= len(block):
            return packed
        # In two, noise may take more than zlib's bound, for which readers have room.
        stored: bytes = deflate_library(0).compress(block, 0, wbits)
        return stored

    return compress


def _in_two(library: Any, level: int, wbits: int, flush: int, block: memoryview) -> bytes:
    """Compress the first bytes of a block on their own, and so every block alike.

    ISA-L's routine for these levels files the third place of a new stream under a hash of
    the stream's own address (`write_first_byte` of igzip_icf_body_h1_gr_bt.asm hashes a
    register before it is loaded). Where that address hits the hash of what stands there, in
    one of some thousands of blocks, another match is found. What follows a flush is no new
    stream, and so few bytes before it are taken by another routine.
    """
    deflater = library.compressobj(level, library.DEFLATED, wbits)
    return b"".join(
        (
            deflater.compress(block[:_HEAD]),
            deflater.flush(library.Z_SYNC_FLUSH),
            deflater.compress(block[_HEAD:]),
            deflater.flush(flush),
        )
    )


def _libdeflate(level: int) -> Compress:
    try:
        import deflate
    except ImportError:
        import zlib

        return partial(zlib.compress, level=level)

    def compress(block: memoryview) -> bytes:
        return bytes(deflate.zlib_compress(block, level))

    return compress


def deflate_blocks(level: int) -> Compress:
    """Return a compressor to deflate blocks that others may follow: they end at a byte, none
    of them is the last of its stream, and they refer to nothing before them."""
    library = deflate_library(level)
    if level <= _BY_ADDRESS:
        return partial(_in_two, library, level, -library.MAX_WBITS, library.Z_SYNC_FLUSH)

    def compress(block: memoryview) -> bytes:
        deflater = library.compressobj(level, library.DEFLATED, -library.MAX_WBITS)
        blocks: bytes = deflater.compress(block) + deflater.flush(library.Z_SYNC_FLUSH)
        return blocks

    return compress


def gzip_member(level: int) -> Compress:
    """Return a compressor to gzip members (RFC 1952) without name and time."""
    try:
        import deflate
    except ImportError:
        import gzip

        return partial(gzip.compress, compresslevel=level, mtime=0)

    def compress(block: memoryview) -> bytes:
        return bytes(deflate.gzip_compress(block, level))

    return compress


def deflate_library(level: int) -> Any:
    """Return ISA-L for levels 1 to 3 and zlib-ng for others, or what takes their place: a
    module that looks like zlib."""
    try:
        if 1 <= level <= _ISAL_LEVELS:
            from isal import isal_zlib

            return isal_zlib
        from zlib_ng import zlib_ng

        return zlib_ng
    except ImportError:
        import zlib

        return zlib
