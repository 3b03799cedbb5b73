"""Images damaged on purpose, and what two checks say of them."""

import json
import struct
from pathlib import Path
from typing import Any

import imgconv
from imgconv import CheckReport
from support.peers import qemu_img, qemu_name

COUNTS = ("corruptions", "leaks", "check-errors")
USAGE = (
    "total-clusters",
    "allocated-clusters",
    "compressed-clusters",
    "fragmented-clusters",
    "image-end-offset",
)


def patch(image: Path, offset: int, content: bytes) -> None:
    with open(image, "r+b") as file:
        file.seek(offset)
        file.write(content)


def number(image: Path, offset: int, kind: str) -> int:
    """Read a number that struct calls `kind`."""
    with open(image, "rb") as file:
        file.seek(offset)
        found: int = struct.unpack(kind, file.read(struct.calcsize(kind)))[0]
    return found


def put(image: Path, offset: int, kind: str, value: int) -> None:
    patch(image, offset, struct.pack(kind, value))


def flip(image: Path, offset: int, bits: int = 0xFF) -> None:
    patch(image, offset, bytes([number(image, offset, "B") ^ bits]))


def check(image: Path, format_name: str, **options: Any) -> CheckReport:
    return imgconv.check(image, source_format=format_name, **options)


def assert_clean(report: CheckReport) -> None:
    assert report.exit_status == 0, report.findings
    assert (report.corruptions, report.leaks, report.check_errors) == (0, 0, 0)


def assert_found(report: CheckReport, rule: str, offset: int, severity: str) -> None:
    """One of the findings is the one that is expected."""
    told = {(f.rule, f.offset, f.severity) for f in report.findings}
    assert (rule, offset, severity) in told, report.findings


def qemu_check(image: Path, format_name: str) -> tuple[int, dict[str, Any]]:
    """What qemu-img says: its exit code, and its counts."""
    done = qemu_img("check", "-f", qemu_name(format_name), "--output=json", image)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def assert_agrees(image: Path, format_name: str, keys: tuple[str, ...] = COUNTS) -> CheckReport:
    """qemu-img finds as much as we do, and exits with the same code."""
    status, theirs = qemu_check(image, format_name)
    report = check(image, format_name)
    ours = report.as_json()
    told = {key: theirs.get(key, 0) for key in keys}
    assert (status, told) == (report.exit_status, {key: ours.get(key, 0) for key in keys}), (
        report.findings
    )
    return report
