"""Having an image judged, by a validator and by qemu-img."""

from __future__ import annotations

from pathlib import Path

from . import problems
from .images.qemu import qemu


def found(path: Path, data: bytes, format_name: str) -> list[str]:
    path.write_bytes(data)
    return problems(path, format_name)


def assert_found(texts: list[str], wanted: str) -> None:
    assert any(wanted in text for text in texts), texts


def assert_reads_in_qemu(folder: Path, format_name: str, image: bytes, disk: bytes) -> None:
    """The hand-made image is what it claims to be."""
    (folder / "image").write_bytes(image)
    (folder / "disk").write_bytes(disk)
    files = folder / "disk", folder / "image"
    qemu("compare", "-f", "raw", "-F", format_name, *files)
