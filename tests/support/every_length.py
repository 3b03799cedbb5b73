"""Checks the kernel that IMGCONV_KERNEL names against plain definitions: lengths of 0 to
4096 bytes, at 64 alignments. Run as a program by `test_native.py`, once per kernel."""

import random
from collections.abc import Iterator

from imgconv import kernels, native
from imgconv.native import CRC32, CRC32C, CRC64_NVME, CRC64_XZ, Checksum

LENGTHS, OFFSETS = range(4097), range(64)
# Reflected: bit 0 is the coefficient of the highest power.
POLYNOMIALS = {
    CRC32: 0xEDB88320,
    CRC32C: 0x82F63B78,
    CRC64_XZ: 0xC96C5795D7870F42,
    CRC64_NVME: 0x9A6C9329AC4BC9B5,
}


def prefixes(checksum: Checksum, content: bytes) -> Iterator[int]:
    """Yield the checksum of no bytes, of the first, of the first two ..., bit by bit."""
    ones = (1 << checksum.width) - 1
    state = ones
    yield 0
    for byte in content:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ POLYNOMIALS[checksum] if state & 1 else state >> 1
        yield state ^ ones


def check_checksum(checksum: Checksum) -> None:
    content = random.Random(8).randbytes(LENGTHS[-1])
    expected = list(prefixes(checksum, content))
    for offset in OFFSETS:
        view = memoryview(bytearray(offset) + content)
        found = [checksum.update(view[offset : offset + n]) for n in LENGTHS]
        assert found == expected, (checksum.name, offset)


def check_is_zero() -> None:
    """Zeros between two other bytes, with neither, with each."""
    for offset in OFFSETS:
        for n in LENGTHS:
            view = memoryview(b"\xff" * (offset + 1) + bytes(n) + b"\xff")
            assert native.is_zero(view[offset + 1 : -1]), (n, offset)
            assert not native.is_zero(view[offset:-1]), (n, offset)
            assert not native.is_zero(view[offset + 1 :]), (n, offset)


def check_data_runs() -> None:
    rng = random.Random(9)
    for offset in OFFSETS:
        for granule in (1, 48, 512, 4096):
            holes = bytearray(rng.randrange(20 * granule))
            for _ in range(min(5, len(holes))):
                holes[rng.randrange(len(holes))] = 1
            starts = range(0, len(holes), granule)
            expected = [at for at in starts if any(holes[at : at + granule])]
            view = memoryview(bytearray(b"\xff" * offset) + holes)[offset:]
            runs = native.data_runs(view, granule)
            assert [at for a, b in runs for at in range(a, b, granule)] == expected


if __name__ == "__main__":
    for known in POLYNOMIALS:
        check_checksum(known)
    check_is_zero()
    check_data_runs()
    print(kernels.kernel(), "agrees")
