"""Checks of images' structure, a module or more for each format.

A check goes on where opening an image would stop, and finds as much as it can. A format is
added by one line of the table: the function gets an `Inspection`, records what it finds there,
and returns what is in use. It raises only what reading the file raises.
"""

from collections.abc import Callable

from imgconv.checks.inspection import Inspection
from imgconv.checks.report import CORRUPTION, ERROR, LEAK, WARNING, CheckReport, Usage
from imgconv.errors import CheckUnsupported
from imgconv.loading import load

TABLE = {
    "qcow2": "imgconv.checks.qcow2:check_qcow2",
    "vdi": "imgconv.checks.vdi:check_vdi",
    "vhd": "imgconv.checks.vhd:check_vhd",
    "vmdk": "imgconv.checks.vmdk:check_vmdk",
    "vhdx": "imgconv.checks.vhdx:check_vhdx",
    "raw.gz": "imgconv.checks.raw_gz:check_raw_gz",
    "raw.zst": "imgconv.checks.raw_zst:check_raw_zst",
    "raw.tar.gz": "imgconv.checks.raw_tar_gz:check_raw_tar_gz",
}


def check_image(inspection: Inspection) -> CheckReport:
    """Check an image; raises CheckUnsupported for a format without structure, and what reading
    the file raises."""
    image = inspection.image
    if image.format not in TABLE:
        raise CheckUnsupported(f"{image.file.name}: {image.format} has nothing to check")
    check: Callable[[Inspection], Usage] = load(TABLE[image.format])
    usage = check(inspection)
    findings = inspection.findings
    return CheckReport(
        filename=image.file.name,
        format=image.format,
        corruptions=findings.count(CORRUPTION),
        leaks=findings.count(LEAK),
        check_errors=findings.count(ERROR),
        warnings=findings.count(WARNING),
        usage=usage,
        decoded=inspection.decoded,
        findings=findings.kept,
        omitted=findings.omitted,
    )
