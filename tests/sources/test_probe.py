"""Raw is never guessed from content that carries another format's magic."""

from pathlib import Path

import pytest
from support import disks
from support.peers import qemu_img, qemu_name

import imgconv
from imgconv.errors import FormatMismatch, OptionError
from imgconv.sources.file import FileSource
from imgconv.sources.probe import detect
from imgconv.units import MiB

MADE_BY_QEMU = ["qcow2", "vmdk", "vdi", "vhd", "vhdx", "qed", "parallels"]


@pytest.mark.parametrize("name", MADE_BY_QEMU)
def test_every_format_is_recognised_and_refused_as_raw(tmp_path: Path, name: str) -> None:
    path = tmp_path / "disk.raw"
    assert qemu_img("create", "-f", qemu_name(name), path, "8M").returncode == 0
    assert detect(FileSource(str(path))) == (name,)
    with pytest.raises(FormatMismatch, match=f"looks like {name}.*-f raw"):
        imgconv.convert(path, tmp_path / "out.vdi")


def test_a_fixed_vhd_is_recognised_by_its_end(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    qemu_img("create", "-f", "vpc", "-o", "subformat=fixed", path, "8M")
    assert detect(FileSource(str(path))) == ("vhd",)


def test_two_formats_at_once_are_both_named(tmp_path: Path) -> None:
    end = b"conectix" + bytes(504)
    path = disks.write(tmp_path / "d.img", MiB, {0: b"QFI\xfb", MiB - 512: end})
    with pytest.raises(FormatMismatch, match="qcow2 and vhd"):
        imgconv.open(path)


def test_raw_when_raw_was_said(tmp_path: Path) -> None:
    path = disks.write(tmp_path / "d.qcow2", MiB, {0: b"QFI\xfb"})
    imgconv.convert(path, tmp_path / "o.raw", source_format="raw")
    assert (tmp_path / "o.raw").read_bytes() == path.read_bytes()


def test_a_name_that_promises_another_format(tmp_path: Path) -> None:
    path = disks.dense(tmp_path / "d.qcow2", MiB)
    with pytest.raises(FormatMismatch, match="named like qcow2"):
        imgconv.open(path)


def test_names_that_promise_nothing(tmp_path: Path) -> None:
    for name in ("disk", "disk.iso", "disk.bin", "disk.IMG"):
        with imgconv.open(disks.dense(tmp_path / name, MiB)) as disk:
            assert disk.size == MiB


def test_formats_that_cannot_be_read_yet(tmp_path: Path) -> None:
    path = disks.dense(tmp_path / "d", MiB)
    with pytest.raises(OptionError, match="cannot read format 'qed'"):
        imgconv.open(path, source_format="qed")
    assert imgconv.open(path, source_format="img").size == MiB


def test_what_a_container_holds_may_be_said_to_be_the_disk(tmp_path: Path) -> None:
    """An archive in gzip is a gzip, too, whose content are the bytes of the archive."""
    raw = disks.dense(tmp_path / "d.raw", MiB)
    imgconv.convert(raw, tmp_path / "d.tar.gz")
    with imgconv.open(tmp_path / "d.tar.gz", source_format="raw.gz") as disk:
        assert disk.read(257, 5) == b"ustar"
        assert disk.size > MiB
