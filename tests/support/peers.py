"""The real tools that outputs are held against."""

import json
import subprocess
from pathlib import Path
from typing import Any

QEMU_NAMES = {"vhd": "vpc"}
CHECKABLE = ("qcow2", "vmdk", "vdi", "vhdx")  # qemu-img has no check for raw and vpc


def qemu_name(format_name: str) -> str:
    return QEMU_NAMES.get(format_name, format_name)


def qemu_img(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["qemu-img", *arguments], capture_output=True, text=True, check=False, timeout=300
    )


def assert_qemu_img(*arguments: str | Path) -> None:
    """qemu-img does what it is told."""
    done = qemu_img(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def made_by_qemu(raw: Path, image: Path, format_name: str, *words: str) -> Path:
    """Have qemu-img make an image of a raw disk; `words` are options of its command line."""
    kind = qemu_name(format_name)
    assert_qemu_img("convert", "-f", "raw", "-O", kind, *words, raw, image)
    return image


def assert_same_guest(raw: Path, image: Path, format_name: str) -> None:
    """qemu-img reads the same disk from both, and its check has nothing to say."""
    assert_compares(f"driver={qemu_name(format_name)},file.filename={image}", raw)
    if format_name in CHECKABLE:
        assert_checks(image, format_name)


def assert_checks(image: Path, format_name: str) -> None:
    """The check of qemu-img has nothing to say."""
    done = qemu_img("check", "-f", qemu_name(format_name), image)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No errors were found" in done.stdout


def assert_compares(image_options: str, raw: Path) -> None:
    """qemu-img reads the same disk from a raw file and from an image opened in some way."""
    raw_options = f"driver=raw,file.filename={raw}"
    assert_qemu_img("compare", "--image-opts", raw_options, image_options)


def assert_compares_at(
    raw: Path, image: Path, format_name: str, start: int, length: int
) -> None:
    """qemu-img reads the same `length` bytes from both at `start`, which is a sector's."""
    kinds = ("raw", raw), (qemu_name(format_name), image)
    windows = [
        f"driver=raw,offset={start},size={length},file.driver={kind},file.file.filename={path}"
        for kind, path in kinds
    ]
    assert_qemu_img("compare", "--image-opts", *windows)


def info(image: Path, format_name: str) -> dict[str, Any]:
    done = qemu_img("info", "-f", qemu_name(format_name), "--output=json", image)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
