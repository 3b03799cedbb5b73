"""Kernels agree with plain definitions and with each other; demands are demands."""

import random
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgconv import kernels, native
from imgconv.errors import KernelUnavailable
from imgconv.native import CRC32, CRC32C, CRC64_NVME, CRC64_XZ, Checksum

CHECKSUMS = [CRC32, CRC32C, CRC64_XZ, CRC64_NVME]
buffers = st.one_of(
    st.binary(max_size=600),
    st.builds(
        lambda n, at, b: bytes(at) + b + bytes(n),
        st.integers(0, 9000),
        st.integers(0, 9000),
        st.binary(max_size=3),
    ),
)


@given(buffers)
def test_is_zero(content: bytes) -> None:
    assert native.is_zero(content) == (not any(content))


@given(buffers, st.sampled_from([1, 16, 512, 4096]))
def test_data_runs(content: bytes, granule: int) -> None:
    expected = [n for n in range(0, len(content), granule) if any(content[n : n + granule])]
    found = native.data_runs(content, granule)
    assert [n for a, b in found for n in range(a, b, granule)] == expected
    assert all(a < b for a, b in zip(found.stop, found.start[1:], strict=False))
    assert all(b <= len(content) for b in found.stop)


def test_a_granule_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        native.data_runs(b"x", 0)


@given(
    st.one_of(
        buffers, st.lists(st.sampled_from("ab"), max_size=600).map("".join).map(str.encode)
    ),
    st.integers(1, 40),
)
def test_repeats(content: bytes, distance: int) -> None:
    expected = sum(a == b for a, b in zip(content, content[distance:], strict=False))
    assert native.repeats(content, distance) == expected


def test_a_distance_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        native.repeats(b"x", 0)


@pytest.mark.parametrize(
    ("checksum", "value"),
    [
        (CRC32, 0xCBF43926),
        (CRC32C, 0xE3069283),
        (CRC64_XZ, 0x995DC9BBDF1939FA),
        (CRC64_NVME, 0xAE8B14860A799888),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_published_check_values(checksum: Checksum, value: int) -> None:
    assert checksum.update(b"123456789") == value
    assert checksum.update(b"") == 0


@pytest.mark.parametrize("checksum", CHECKSUMS, ids=lambda c: c.name)
def test_chaining_combining_and_zeros(checksum: Checksum) -> None:
    rng = random.Random(6)
    for length in [0, 1, 15, 16, 63, 64, 65, 511, 512, 513, 5000, 70_001]:
        a, b = rng.randbytes(length), rng.randbytes(rng.randrange(3000))
        whole = checksum.update(a + b)
        assert checksum.update(b, checksum.update(a)) == whole
        assert checksum.combine(checksum.update(a), checksum.update(b), len(b)) == whole
        assert checksum.zeros(checksum.update(a), 777) == checksum.update(a + bytes(777))


@pytest.mark.parametrize("checksum", CHECKSUMS, ids=lambda c: c.name)
def test_zeros_of_any_length_at_once(checksum: Checksum) -> None:
    start = checksum.update(b"head")
    halves = checksum.zeros(checksum.zeros(start, 1 << 45), 12345)
    assert checksum.zeros(start, (1 << 45) + 12345) == halves


@pytest.mark.parametrize("name", kernels.usable_kernels())
def test_every_kernel_at_every_length_and_alignment(name: str) -> None:
    """In a process of its own, because a kernel is chosen for a process."""
    script = Path(__file__).parent / "support" / "every_length.py"
    done = subprocess.run(
        [sys.executable, script],
        env={"IMGCONV_KERNEL": name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"{name} agrees\n", "")


def test_the_reference_runs_everywhere() -> None:
    assert kernels.usable_kernels()[0] == "scalar"


def test_no_demand_takes_the_best() -> None:
    best = kernels.usable_kernels()[-1]
    assert kernels.kernel_names()[kernels.choose_kernel({})] == best
    assert kernels.kernel_names()[kernels.choose_kernel({"IMGCONV_KERNEL": ""})] == best


def test_a_demand_that_cannot_be_met_is_an_error() -> None:
    with pytest.raises(KernelUnavailable, match="no such kernel; known are scalar"):
        kernels.choose_kernel({"IMGCONV_KERNEL": "warp"})
    unusable = set(kernels.kernel_names()) - set(kernels.usable_kernels())
    assert unusable, "x86 never builds neon, and aarch64 never avx2"
    for name in unusable:
        with pytest.raises(KernelUnavailable, match=r"not built|does not support"):
            kernels.choose_kernel({"IMGCONV_KERNEL": name})


def test_memory_is_not_copied_from_views() -> None:
    """Any contiguous buffer will do, and the same bytes have the same checksum."""
    content = random.Random(9).randbytes(10_000)
    views = [content, bytearray(content), memoryview(content), memoryview(bytearray(content))]
    assert len({CRC64_XZ.update(view) for view in views}) == 1
    assert zlib.crc32(content) == CRC32.update(content) != CRC32C.update(content)
