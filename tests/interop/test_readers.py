"""Readers that share no code with QEMU or with us return the disk that went in."""

from pathlib import Path

import pytest
from oslo_utils.imageutils import format_inspector
from support import disks
from support.readers import READERS, assert_reads_same
from support.variants import COMPRESSED, VARIANTS

import imgconv
from imgconv.units import KiB, MiB

# A multiple of 8 KiB: dissect's VMDK reader fails at the end of other sizes.
SIZE = 41 * MiB + 8 * KiB

CASES = [
    (variant, reader)
    for variant, options in VARIANTS.items()
    for name, reader in READERS
    # libqcow misreads streams that do not begin at a sector, those of QEMU too.
    if name == options.name and not (reader == "libqcow" and variant in COMPRESSED)
]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disks.random_runs(tmp_path_factory.mktemp("raw") / "disk.in", SIZE)


@pytest.mark.parametrize(("variant", "reader"), CASES)
def test_reader_returns_the_disk(tmp_path: Path, raw: Path, variant: str, reader: str) -> None:
    options = VARIANTS[variant]
    image = tmp_path / f"disk.{options.name}"
    imgconv.convert(raw, image, options=options)
    assert_reads_same(raw, image, options.name, reader)


INSPECTED = {name: name for name in ("vhd", "vdi", "vmdk", "qcow2", "vhdx")}


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "raw" and "-fixed" not in v])
def test_openstack_accepts_it(tmp_path: Path, raw: Path, variant: str) -> None:
    """oslo.utils guards Glance, Nova and Cinder; it must know the format and allow it."""
    options = VARIANTS[variant]
    if variant == "vhd-azure":
        return  # fixed VHDs have no magic at the front, and OpenStack takes them as raw
    image = tmp_path / f"disk.{options.name}"
    imgconv.convert(raw, image, options=options)
    inspector = format_inspector.detect_file_format(str(image))
    assert str(inspector) == INSPECTED[options.name]
    assert inspector.virtual_size == SIZE
    inspector.safety_check()
