"""gzip, zstd and archives: sound ones are called so, one fault hides no other."""

import gzip
import subprocess
from pathlib import Path

import pytest
import pyzstd
from hostile import packed_cases
from hostile.case import MALFORMED
from support import disks
from support.damage import assert_clean, assert_found, check
from support.packed_image import member, packed, seekable
from support.variants import PACKED

import imgconv
from imgconv import ReadOptions
from imgconv.units import KiB, MiB

SIZE = 9 * MiB + 5 * KiB
TOOLS = {
    "raw.gz": "gzip -c disk.raw > out",
    "raw.zst": "zstd -q -c disk.raw > out",
    "raw.tar.gz": "tar --format=oldgnu -Sczf out disk.raw",
}


@pytest.mark.parametrize("name", PACKED)
def test_what_imgconv_writes(tmp_path: Path, name: str) -> None:
    raw, options = disks.random_runs(tmp_path / "disk.raw", SIZE), PACKED[name]
    image = tmp_path / f"disk.{options.name}"
    imgconv.convert(raw, image, options=options)
    report = check(image, options.name)
    assert_clean(report)
    assert report.decoded
    assert not report.warnings, report.findings
    assert_clean(check(image, options.name, data=False))


@pytest.mark.parametrize("name", TOOLS)
def test_what_other_tools_write(tmp_path: Path, name: str) -> None:
    disks.random_runs(tmp_path / "disk.raw", SIZE)
    subprocess.run(TOOLS[name], shell=True, check=True, cwd=tmp_path)
    report = check(tmp_path / "out", name)
    assert_clean(report)
    assert not report.warnings, report.findings


def test_a_member_that_is_wrong_hides_no_other(tmp_path: Path) -> None:
    one = bytearray(gzip.compress(b"1" * 1024, mtime=0))
    one[-8] ^= 1
    two = bytearray(gzip.compress(b"2" * 1024, mtime=0))
    two[-4] ^= 1
    (tmp_path / "d.raw.gz").write_bytes(one + two + b"garbage")
    report = check(tmp_path / "d.raw.gz", "raw.gz")
    assert (report.exit_status, report.corruptions) == (2, 3)
    assert_found(report, "member-checksum", len(one) - 8, "corruption")
    assert_found(report, "member-size", len(one + two) - 4, "corruption")
    assert_found(report, "trailing-data", len(one + two), "corruption")


def test_a_frame_that_is_wrong_hides_no_other(tmp_path: Path) -> None:
    """Nor do they hide what is wrong with the table."""
    options = {pyzstd.CParameter.checksumFlag: 1}
    frames = [bytearray(pyzstd.compress(bytes([n]) * 8192, options)) for n in range(1, 4)]
    for frame in frames[:2]:
        frame[-1] ^= 1
    sizes = 8192, 4096, 12288  # the third begins where it must not
    pairs = [(bytes(f), size) for f, size in zip(frames, sizes, strict=True)]
    image = tmp_path / "d.raw.zst"
    image.write_bytes(seekable(*pairs))
    report = check(image, "raw.zst")
    assert (report.exit_status, report.decoded, report.corruptions) == (2, 1, 3)
    assert_found(report, "stream", 0, "corruption")
    assert_found(report, "stream", len(frames[0]), "corruption")
    table = sum(map(len, frames)) + 8
    assert_found(report, "table-entry", table + 2 * 8, "corruption")
    assert check(image, "raw.zst", threads=3) == check(image, "raw.zst", threads=1)
    quick = check(image, "raw.zst", data=False)
    assert (quick.decoded, quick.corruptions) == (0, 1)


def test_members_that_are_wrong_hide_no_other(tmp_path: Path) -> None:
    sparse = packed_cases.member(b"0" * 11 + b"\0" + b"00000001000\0", type=b"S", size=1024)
    names = member(name="../out.raw", size=512)
    (tmp_path / "d.tar.gz").write_bytes(packed(sparse, bytes(1024), names, bytes(512)))
    report = check(tmp_path / "d.tar.gz", "raw.tar.gz")
    assert report.exit_status == 2
    assert_found(report, "member", 0, "corruption")
    assert_found(report, "member-name", 512 + 1024, "warning")
    assert_found(report, "unsupported", 0, "error")  # which of them is the disk?


BOTH = [(family, name) for family, cases in packed_cases.FAMILIES.items() for name in cases]
EXPECTED = {  # what holds next to nothing takes long to read, not to check
    ("raw.gz", "70,000 members of nothing"): 2,
    ("raw.zst", "70,000 frames of nothing"): 0,
    ("raw.zst", "bomb of a table"): 2,
}


@pytest.mark.parametrize(("family", "name"), BOTH)
def test_hostile_images_are_found_out(tmp_path: Path, family: str, name: str) -> None:
    case = packed_cases.FAMILIES[family][name]
    image = case.make().write(tmp_path / f"disk.{family}")
    if not image.stat().st_size or not case.format:
        return  # not opened at all, or sound but for what is inside
    read = ReadOptions(max_virtual_size=case.size or ReadOptions().max_virtual_size)
    report = check(image, family, read=read)
    expected = 2 if case.code == MALFORMED else 1
    assert report.exit_status == EXPECTED.get((family, name), expected), report.findings
