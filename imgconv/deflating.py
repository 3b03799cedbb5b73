"""Compressing to deflate: which library for which level, and for which block.

ISA-L is the fastest by far; zlib-ng, where the history is short, and libdeflate, where it is
full, make less of what repeats itself: of records and machine code more than of texts, and
nothing of what is compressed already. So at low levels they share the work, and how many
bytes of a block equal the one four before says which of them has it. Nothing else does, so
that the same blocks always give the same bytes. What each choice is worth stands in
`benchmarks/README.md`.

Where a library is not installed zlib does it: every level always works, the same block then
takes other bytes.
"""

from bisect import bisect
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from imgconv.native import repeats

Compress: TypeAlias = Callable[[memoryview], bytes]  # safe from any number of threads

_ISAL_LEVELS = 3
_HEAD = 8  # bytes of a block that stand before what ISA-L makes of the rest
_SYNC, _FINISH = 2, 4  # zlib's Z_SYNC_FLUSH and Z_FINISH
_ZLIB_HEADER = b"\x78\x01"  # of a stream with all the history there is, made fast
_SHORT, _FULL = 12, 15  # of history, as powers of two
_PERIOD = 4  # bytes, of records and tables
_NOISE = 0.005  # the share that repeats by chance is 1/256
_LITTLE, _MUCH = 3, 8  # memory, by zlib's scale: with little, ISA-L's codes change more often


def raw_deflate(level: int) -> Compress:
    """Return a compressor to raw deflate (RFC 1951) with a history of 4 KiB."""
    if level == 1:  # what ISA-L does at level 2: its own 1 is as slow, and larger
        return _zlib_like(2, -_SHORT, _LITTLE)
    if level == 2:
        return _zlib_like(3, -_SHORT)
    if level == 3:
        text, records = _zlib_like(3, -_SHORT), _zlib_like(5, -_SHORT)
        return _by_repeats((0, _zlib_like(2, -_SHORT)), (_NOISE, text), (0.12, records))
    return _zlib_like(level, -_SHORT)


def zlib_stream(level: int) -> Compress:
    """Return a compressor to zlib streams (RFC 1950) with all the history deflate has."""
    fast = _zlib_like(2, _FULL)
    if level == 1:
        return _by_repeats((0, fast), (0.07, _libdeflate(2)))
    if level == 2:
        return _by_repeats((0, fast), (0.07, _libdeflate(5)))
    if level == 3:
        return _by_repeats((0, fast), (0.055, _libdeflate(5)))
    return _libdeflate(level)


def _by_repeats(*steps: tuple[float, Compress]) -> Compress:
    """Return a compressor that gives a block to the last of those whose share of its bytes
    repeats; shares ascend from 0."""
    shares = [share for share, _ in steps]

    def compress(block: memoryview) -> bytes:
        step = bisect(shares, repeats(block, _PERIOD) / len(block)) - 1
        return steps[step][1](block)

    return compress


def _zlib_like(level: int, wbits: int, memory: int = _MUCH) -> Compress:
    library = deflate_library(level)
    if not _heeds_addresses(library, level):
        return partial(library.compress, level=level, wbits=wbits)

    def compress(block: memoryview) -> bytes:
        packed = _behind_head(library, level, -abs(wbits), memory, _FINISH, block)
        if wbits > 0:
            packed = _ZLIB_HEADER + packed + library.adler32(block).to_bytes(4, "big")
        if len(packed) <= len(block):
            return packed
        # With a head, noise may take more than zlib's bound, for which readers have room.
        stored: bytes = deflate_library(0).compress(block, 0, wbits)
        return stored

    return compress


def _heeds_addresses(library: Any, level: int) -> bool:
    """Whether what it makes of a block depends on where in memory it does so.

    ISA-L's routine for levels 1 and 2 files the third place of a new stream under a hash of
    the stream's own address (`write_first_byte` of igzip_icf_body_h1_gr_bt.asm hashes a
    register before it is loaded). Where that address hits the hash of what stands there, in
    one of some thousands of blocks, another match is found.
    """
    return bool(library.__name__ == "isal.isal_zlib") and level in (1, 2)


def _behind_head(
    library: Any, level: int, wbits: int, memory: int, flush: int, block: memoryview
) -> bytes:
    """Compress a block by ISA-L to the same bytes everywhere: the first bytes are stored, and
    to what has them for its history the routine does not turn as to a new stream."""
    head = bytes(block[:_HEAD])
    size = len(head)
    stored = b"\0" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little") + head
    deflater = library.compressobj(level, library.DEFLATED, wbits, memory, 0, head)
    return b"".join((stored, deflater.compress(block[_HEAD:]), deflater.flush(flush)))


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
    at_once = not _heeds_addresses(library, level)

    def compress(block: memoryview) -> bytes:
        if not at_once:
            return _behind_head(library, level, -library.MAX_WBITS, _MUCH, _SYNC, block)
        deflater = library.compressobj(level, library.DEFLATED, -library.MAX_WBITS)
        blocks: bytes = deflater.compress(block) + deflater.flush(_SYNC)
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
