"""Independent readers: libyal's libraries and dissect.hypervisor, as byte streams.

Both read in unit-sized steps, as dissect's VDI and VHDX readers map a read that crosses
blocks by its first block only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyqcow
import pyvhdi
import pyvmdk
from dissect.hypervisor.disk.qcow2 import QCow2
from dissect.hypervisor.disk.vdi import VDI
from dissect.hypervisor.disk.vhd import VHD
from dissect.hypervisor.disk.vhdx import VHDX
from dissect.hypervisor.disk.vmdk import VMDK

STEP = 64 << 10


@contextmanager
def _libyal_vmdk(path: Path) -> Iterator[Any]:
    handle = pyvmdk.handle()
    handle.open(str(path))
    try:
        handle.open_extent_data_files()
        yield handle
    finally:
        handle.close()


@contextmanager
def _libyal(module: Any, path: Path) -> Iterator[Any]:
    image = module.file()
    image.open(str(path))
    try:
        yield image
    finally:
        image.close()


@contextmanager
def _dissect(kind: Any, path: Path) -> Iterator[Any]:
    with open(path, "rb") as file:
        image = kind(file)
        yield image.open() if hasattr(image, "open") else image


READERS = {
    ("vhd", "libvhdi"): lambda path: _libyal(pyvhdi, path),
    ("vhdx", "libvhdi"): lambda path: _libyal(pyvhdi, path),
    ("qcow2", "libqcow"): lambda path: _libyal(pyqcow, path),
    ("vmdk", "libvmdk"): _libyal_vmdk,
    ("vhd", "dissect"): lambda path: _dissect(VHD, path),
    ("qcow2", "dissect"): lambda path: _dissect(QCow2, path),
    ("vmdk", "dissect"): lambda path: _dissect(VMDK, path),
    ("vdi", "dissect"): lambda path: _dissect(VDI, path),
    ("vhdx", "dissect"): lambda path: _dissect(VHDX, path),
}


def assert_reads_same(raw: Path, image: Path, format_name: str, reader: str) -> None:
    """The reader returns the raw disk's bytes, all of them."""
    with open(raw, "rb") as expected, READERS[format_name, reader](image) as actual:
        offset = 0
        while wanted := expected.read(STEP):
            found = actual.read(len(wanted))
            assert found == wanted, f"{reader} differs in the {STEP} bytes at {offset}"
            offset += len(wanted)


def assert_reads_same_at(
    raw: Path, image: Path, reader: tuple[str, str], start: int, length: int
) -> None:
    """The reader returns the raw disk's bytes in one window, cut at both ends of the disk."""
    at, end = max(start, 0), start + length
    with open(raw, "rb") as expected, READERS[reader](image) as actual:
        while at < end:
            expected.seek(at)
            actual.seek(at)
            wanted = expected.read(min(STEP - at % STEP, end - at))
            if not wanted:
                return
            assert actual.read(len(wanted)) == wanted
            at += len(wanted)
