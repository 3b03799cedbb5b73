"""VMDK: one file, or a descriptor and those of its extents that may be opened."""

from dataclasses import replace

from imgconv.checks.inspection import Inspection
from imgconv.checks.report import Usage
from imgconv.checks.vmdk_descriptor import check_descriptor
from imgconv.checks.vmdk_esx import check_cowd, check_sesparse
from imgconv.checks.vmdk_sparse import check_sparse
from imgconv.errors import ImageUnsupported, SourceUnreadable
from imgconv.ondisk import vmdk as ondisk
from imgconv.ondisk import vmdk_esx as esx
from imgconv.sources.checked import ImageFile
from imgconv.sources.references import open_reference
from imgconv.sources.vmdk import SPLIT
from imgconv.sources.vmdk_descriptor import MAX_TEXT, Descriptor, ExtentLine
from imgconv.units import SECTOR, round_up

_FLAT = ("FLAT", "VMFS")


def check_vmdk(inspection: Inspection) -> Usage:
    """Check a VMDK; raises what reading its files raises."""
    front = inspection.read(0, SECTOR)
    if front.startswith(ondisk.TEXT_MAGICS):
        length, text = min(inspection.size, MAX_TEXT), f"a text of {inspection.size} bytes"
        inspection.require(inspection.size <= MAX_TEXT, "descriptor", 0, text)
        descriptor = check_descriptor(inspection, 0, length)
        if descriptor is not None:
            _check_extents(inspection, descriptor)
        return Usage()
    usage, descriptor = _check_extent(inspection, front)
    if descriptor is not None and descriptor.create_type in SPLIT:
        rest = replace(descriptor, extents=descriptor.extents[1:])  # the first is this one
        _check_extents(inspection, rest)
    return usage


def _check_extent(
    inspection: Inspection, front: bytes, *, part: bool = False
) -> tuple[Usage, Descriptor | None]:
    if front.startswith(ondisk.MAGIC):
        return check_sparse(inspection, part=part)
    if front.startswith(esx.COWD_MAGIC):
        return check_cowd(inspection), None
    if front.startswith(esx.SESPARSE_FRONT):
        return check_sesparse(inspection), None
    inspection.corruption("header-magic", 0, "neither an extent nor a descriptor")
    return Usage(), None


def _check_extents(inspection: Inspection, descriptor: Descriptor) -> None:
    """Check the extents that are in files of their own."""
    for line in descriptor.extents:
        if line.kind == "ZERO":
            continue
        try:
            file = open_reference(inspection.image, line.name, "an extent")
        except (ImageUnsupported, SourceUnreadable) as error:
            inspection.error("extent", 0, f"an extent was not checked: {error}")
            continue
        try:
            _check_line(inspection, line, ImageFile(file, "vmdk", inspection.image.options))
            file.verify()
        finally:
            file.close()


def _check_line(inspection: Inspection, line: ExtentLine, image: ImageFile) -> None:
    need = (line.offset + line.sectors) * SECTOR
    if line.kind in _FLAT:
        there = round_up(image.file.size, SECTOR)
        text = f"the extent {line.name!a} has {there} bytes, {need} are said to be in it"
        inspection.require(there >= need, "extent-size", 0, text)
        return
    inner = replace(inspection, image=image, findings=inspection.findings.about(line.name))
    _check_extent(inner, inner.read(0, SECTOR), part=True)
    inspection.decoded = inner.decoded
