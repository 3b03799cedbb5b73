"""Compressors: every level decodes, in the window it promises, with and without libraries."""

import random
import struct
import sys
import threading
import zlib
from collections.abc import Callable

import deflate
import numpy as np
import pytest
import zstandard
from zlib_ng import zlib_ng

from imgconv.codecs import choose_level, codec, system_zstd, zstd
from imgconv.deflating import Compress, deflate_blocks, raw_deflate, zlib_stream
from imgconv.errors import OptionError
from imgconv.formats.vmdk_stream import MAX_DEFLATED
from imgconv.units import KiB

BLOCK = 64 * KiB
RNG = random.Random(1)
NOISE = RNG.randbytes(BLOCK)
BLOCKS = {
    "zeros": bytes(BLOCK),
    "ones": b"\xff" * BLOCK,
    "text": (b"the quick brown fox jumps over the lazy dog " * 1500)[:BLOCK],
    "noise": NOISE,
    "far": (NOISE[:5000] * 14)[:BLOCK],  # repeats beyond 4 KiB
    "short": NOISE[:700],
}
LIBRARIES = {"all": (), "no isal": ("isal",), "zlib alone": ("isal", "zlib_ng", "deflate")}
DEFLATE = {-12: raw_deflate, 15: zlib_stream}


@pytest.fixture(params=LIBRARIES)
def libraries(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    for missing in LIBRARIES[name]:
        monkeypatch.setitem(sys.modules, missing, None)
    return name


@pytest.mark.parametrize("level", range(1, 10))
@pytest.mark.parametrize("window_bits", DEFLATE)
@pytest.mark.parametrize("name", BLOCKS)
def test_deflate_decodes(name: str, window_bits: int, level: int, libraries: str) -> None:
    """Zlib refuses a distance beyond the window it is told of, as strict readers do."""
    packed = DEFLATE[window_bits](level)(memoryview(BLOCKS[name]))
    reader = zlib.decompressobj(wbits=window_bits)
    # Piece by piece: in one call zlib would have all of its output for a window.
    found = b"".join(reader.decompress(packed[i : i + 100]) for i in range(0, len(packed), 100))
    assert found + reader.flush() == BLOCKS[name]
    assert reader.eof
    assert not reader.unused_data


@pytest.mark.parametrize("level", range(1, 10))
def test_noise_grows_no_more_than_readers_have_room_for(level: int, libraries: str) -> None:
    assert len(zlib_stream(level)(memoryview(NOISE))) <= MAX_DEFLATED


@pytest.mark.parametrize("level", range(1, 20))
@pytest.mark.parametrize("name", BLOCKS)
def test_zstd_makes_one_frame_with_its_size(name: str, level: int) -> None:
    packed = zstd(level, 64 * KiB)(memoryview(BLOCKS[name]))
    parameters = zstandard.get_frame_parameters(packed)
    assert parameters.content_size == len(BLOCKS[name])
    assert parameters.dict_id == 0
    reader = zstandard.ZstdDecompressor().decompressobj()
    assert reader.decompress(packed) == BLOCKS[name]
    assert reader.eof
    assert not reader.unused_data


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("make", [raw_deflate, zlib_stream, deflate_blocks])
def test_bytes_do_not_depend_on_where_memory_lies(
    make: Callable[[int], Compress], level: int
) -> None:
    """ISA-L takes a hash of an address for one of data: a block whose start has that hash, one
    in 8,192, and comes again is compressed otherwise by threads with other stacks and heaps.
    So is one with that behind the first bytes, where what is left begins."""
    rng, compress = random.Random(2), make(level)
    starts = [rng.randbytes(6) for _ in range(12_000)]
    blocks = [
        memoryview(NOISE[:first] + start + NOISE[10:50] + start * 2 + NOISE[50:90])
        for start in starts
        for first in (0, 8)
    ]
    found: list[list[bytes]] = []

    def work() -> None:
        found.append([compress(block) for block in blocks])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    "compress", [codec("zlib", 3, 64 * KiB), codec("zstd", 3, 64 * KiB), zlib_stream(3)]
)
def test_threads_share_a_compressor(compress: Compress) -> None:
    wanted = {key: compress(memoryview(block)) for key, block in BLOCKS.items()}
    wrong: list[str] = []

    def work() -> None:
        for _ in range(20):
            for key, block in BLOCKS.items():
                if compress(memoryview(block)) != wanted[key]:
                    wrong.append(key)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_word_is_a_level() -> None:
    for name in ("zlib", "zstd"):
        levels = [choose_level(name, word, None) for word in ("fast", "balanced", "small")]
        assert levels == sorted(set(levels))
        assert choose_level(name, None, None) == levels[1]
    assert choose_level("zlib", "small", 2) == 2


@pytest.mark.parametrize(("name", "level"), [("zlib", 0), ("zlib", 10), ("zstd", 20)])
def test_levels_have_ends(name: str, level: int) -> None:
    with pytest.raises(OptionError, match=f"compression_level={level}: must be from 1 to"):
        choose_level(name, None, level)


RECORDS = b"".join(n.to_bytes(4, "little") for n in range(BLOCK // 4))
WORDS = b" ".join(RNG.choices([RNG.randbytes(6).hex().encode() for _ in range(999)], k=6000))
PAIRS = {
    "qcow2": (raw_deflate, 3, lambda block: zlib_ng.compress(block, 4, wbits=-12)),
    "vmdk": (zlib_stream, 3, lambda block: deflate.zlib_compress(block, 5)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_records_and_texts_go_to_different_libraries(pair: str) -> None:
    """Which of them a block goes to follows from its bytes alone, wherever it lies."""
    compressor, level, thorough = PAIRS[pair]
    compress = compressor(level)
    records, words = memoryview(RECORDS), memoryview(WORDS)[:BLOCK]
    assert compress(records) == thorough(records)
    assert compress(words) != thorough(words)
    assert compress(memoryview(bytes(3) + RECORDS)[3:]) == compress(records)


def decode_many(frames: list[bytes], sizes: list[int]) -> tuple[int, list[bytes]]:
    """Decode frames that lie one behind another; return how many were, and their contents."""
    length, size = np.array([len(frame) for frame in frames]), np.array(sizes)
    where, place = np.cumsum(length) - length, np.cumsum(size) - size
    buffer = bytearray(b"?" * int(size.sum()))
    streams = memoryview(b"".join(frames))
    library = system_zstd()
    assert library is not None
    count = library.decode(streams, where, length, memoryview(buffer), place, size)
    return count, [bytes(buffer[a : a + n]) for a, n in zip(place, size, strict=True)]


FRAMES = [zstandard.ZstdCompressor().compress(block) for block in BLOCKS.values()]
CHECKED = zstandard.ZstdCompressor(write_checksum=True).compress(NOISE)
SIZES = [len(block) for block in BLOCKS.values()]


def test_many_frames_are_decoded_in_one_call() -> None:
    count, found = decode_many([frame + b"padding" for frame in FRAMES], SIZES)
    assert (count, found) == (len(BLOCKS), list(BLOCKS.values()))


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a frame", id="no-frame"),
        pytest.param(struct.pack("<II", 0x184D2A50, 3) + b"abc" + FRAMES[0], id="skippable"),
        pytest.param(FRAMES[3][:-1], id="cut-off"),
        pytest.param(FRAMES[3][:9], id="hardly-begun"),
        pytest.param(CHECKED[:-1] + bytes((CHECKED[-1] ^ 1,)), id="wrong-checksum"),
        pytest.param(zstandard.ZstdCompressor().compress(NOISE[1:]), id="too-short"),
        pytest.param(zstandard.ZstdCompressor().compress(NOISE + b"!"), id="too-long"),
        pytest.param(
            zstandard.ZstdCompressor(write_content_size=False).compress(NOISE), id="no-size"
        ),
    ],
)
def test_what_is_no_plain_frame_is_left(frame: bytes) -> None:
    """And with it all that follows; what came before is there."""
    count, found = decode_many([FRAMES[0], frame, FRAMES[1]], [BLOCK, BLOCK, BLOCK])
    assert count == 1
    assert (found[0], found[2]) == (BLOCKS["zeros"], b"?" * BLOCK)
