"""Differencing VHDs: libvhdi is the judge; parents are opened by permission only."""

from pathlib import Path

import pytest
import pyvhdi
from support import disks, vhd_child
from support.cli import assert_one_line_error
from support.cli import imgconv as command
from support.reading import guest

import imgconv
from imgconv import ReadOptions
from imgconv.errors import ImageMalformed, ImageUnsupported, SourceUnreadable
from imgconv.units import SECTOR, MiB

SIZE = 9 * MiB
HERE = ReadOptions(allow_references="same-folder")
SECTORS = {
    0: b"a" * SECTOR,
    7: bytes(SECTOR),  # zeros over the parent's data
    8: b"b" * SECTOR,
    4095: b"c" * SECTOR,
    4096: b"d" * SECTOR,
    SIZE // SECTOR - 1: b"e" * SECTOR,
}


def id_of(image: Path) -> bytes:
    return image.read_bytes()[-SECTOR:][68:84]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    raw = disks.random_runs(tmp_path / "base.raw", SIZE)
    imgconv.convert(raw, tmp_path / "base.vhd")
    return tmp_path / "base.vhd"


def child_of(
    parent: Path,
    name: str = "child.vhd",
    *,
    names: str | None = None,
    parent_id: bytes | None = None,
    own_id: bytes = b"child id 16 byte",
    locators: dict[bytes, bytes] | None = None,
) -> Path:
    return vhd_child.make(
        parent.with_name(name),
        SIZE,
        SECTORS,
        parent_id=id_of(parent) if parent_id is None else parent_id,
        own_id=own_id,
        name=parent.name if names is None else names,
        locators=locators,
    )


def by_libvhdi(child: Path, parent: Path) -> bytes:
    below, above = pyvhdi.file(), pyvhdi.file()
    below.open(str(parent))
    above.open(str(child))
    above.set_parent(below)
    try:
        return b"".join(above.read_buffer_at_offset(MiB, at) for at in range(0, SIZE, MiB))
    finally:
        above.close()
        below.close()


def test_a_child_reads_as_libvhdi_reads_it(base: Path, tmp_path: Path) -> None:
    child = child_of(base)
    expected = by_libvhdi(child, base)
    assert expected != (tmp_path / "base.raw").read_bytes()
    assert guest(child, read=HERE) == expected
    imgconv.convert(child, tmp_path / "out.raw", read=HERE, threads=3)
    assert (tmp_path / "out.raw").read_bytes() == expected


def test_a_child_of_a_child_and_a_fixed_parent(tmp_path: Path) -> None:
    raw = disks.random_runs(tmp_path / "base.raw", SIZE)
    fixed = tmp_path / "fixed.vhd"
    imgconv.convert(raw, fixed, options=imgconv.Vhd(subformat="fixed"))
    middle = child_of(fixed, "middle.vhd", own_id=b"the middle of it")
    top = {3: b"top".ljust(SECTOR, b"."), 8: bytes(SECTOR)}
    upper = vhd_child.make(
        tmp_path / "upper.vhd", SIZE, top, parent_id=b"the middle of it", name="middle.vhd"
    )
    expected = bytearray(by_libvhdi(middle, fixed))
    for number, data in top.items():
        expected[number * SECTOR : (number + 1) * SECTOR] = data
    with imgconv.open(upper, read=HERE) as disk:
        assert disk.read(0, SIZE) == expected


@pytest.mark.parametrize(
    ("code", "path"),
    [
        (b"W2ru", ".\\base.vhd".encode("utf-16-le")),
        (b"W2ru", "base.vhd\0rest".encode("utf-16-le")),
        (b"MacX", b"base.vhd"),
    ],
)
def test_locators_come_before_the_name(base: Path, code: bytes, path: bytes) -> None:
    child = child_of(base, locators={code: path}, names="x.vhd")
    with imgconv.open(child, read=HERE) as disk:
        assert disk.read(0, SECTOR) == SECTORS[0]


def test_a_parent_elsewhere_is_opened_by_its_path(base: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    far = base.rename(tmp_path / "far" / "base.vhd")
    child = vhd_child.make(
        tmp_path / "c.vhd", SIZE, SECTORS, parent_id=id_of(far), name="far\\base.vhd"
    )
    with pytest.raises(ImageUnsupported, match="not allowed"):
        imgconv.open(child, read=HERE)
    with imgconv.open(child, read=ReadOptions(allow_references=(str(far),))) as disk:
        assert disk.read(0, SIZE) == by_libvhdi(child, far)


def test_no_parent_is_opened_unless_it_is_allowed(base: Path, tmp_path: Path) -> None:
    done = command(child_of(base), tmp_path / "out.raw")
    assert_one_line_error(done, "needs its parent, 'base.vhd', which is not allowed")
    assert not (tmp_path / "out.raw").exists()


def test_another_disk_of_the_same_name_is_no_parent(base: Path) -> None:
    child = child_of(base, parent_id=b"somebody else id")
    with pytest.raises(ImageUnsupported, match="needs another parent"):
        imgconv.open(child, read=HERE)


def test_a_parent_that_is_gone_and_one_that_is_no_vhd(base: Path) -> None:
    child = child_of(base)
    base.write_bytes(b"x" * MiB)
    with pytest.raises(ImageMalformed, match=r"base\.vhd"):
        imgconv.open(child, read=HERE)
    base.unlink()
    with pytest.raises(SourceUnreadable, match=r"base\.vhd"):
        imgconv.open(child, read=HERE)


def test_a_child_that_is_its_own_parent(base: Path) -> None:
    child = child_of(base, names="child.vhd")
    with pytest.raises(ImageUnsupported, match="needs itself"):
        imgconv.open(child, read=HERE)


def test_paths_that_cannot_be(base: Path) -> None:
    with pytest.raises(ImageMalformed, match="a path of 5000 bytes"):
        imgconv.open(child_of(base, locators={b"W2ru": b"x" * 5000}), read=HERE)
    with pytest.raises(SourceUnreadable, match="No such file"):
        imgconv.open(child_of(base, locators={b"W2ru": b"\xff\xfe\x00"}), read=HERE)
