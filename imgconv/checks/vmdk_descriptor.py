"""A VMDK's descriptor: what its lines say, and whether they agree with the extents."""

import re

from imgconv.checks.inspection import Inspection
from imgconv.errors import ImageMalformed
from imgconv.ondisk import vmdk as ondisk
from imgconv.sources.vmdk import ALONE, DESCRIBED
from imgconv.sources.vmdk_descriptor import MAX_TEXT, Descriptor, parse
from imgconv.units import SECTOR

_KEYS = ("version", "cid", "parentcid")
_ACCESS = ("RW", "RDONLY", "NOACCESS")


def embedded_descriptor(
    inspection: Inspection, header: ondisk.SparseHeader, *, part: bool
) -> Descriptor | None:
    """Check the descriptor in a sparse extent against the extent's header; one that is a part
    of a disk need not have any."""
    start, length = header.descriptor_offset * SECTOR, header.descriptor_size * SECTOR
    if start == 0:
        return None
    text = f"a descriptor of {length} bytes at {start}"
    good = 0 < length <= MAX_TEXT and inspection.holds(start, length)
    if not inspection.require(good, "descriptor", 28, text):
        return None
    if not inspection.read(start, 1)[0]:
        if not part:
            text = "no descriptor; is it a part of a disk, whose descriptor is elsewhere?"
            inspection.error("descriptor-missing", start, text)
        return None
    descriptor = check_descriptor(inspection, start, length)
    if descriptor is None or descriptor.create_type not in ALONE:
        return descriptor
    streamed = bool(header.flags & ondisk.FLAG_COMPRESSED)
    agree = streamed == (descriptor.create_type == "streamOptimized")
    text = f"a {descriptor.create_type}, but the header says otherwise"
    inspection.require(agree, "descriptor-type", start, text)
    told = sum(extent.sectors for extent in descriptor.extents)
    text = f"extents of {told} sectors, but the header tells {header.capacity}"
    # VirtualBox rounds the header's up to whole grains.
    near = told <= header.capacity < told + max(header.grain_size, 1)
    inspection.require(near, "descriptor-size", start, text)
    single = len(descriptor.extents) == 1
    inspection.require(
        single, "descriptor-extents", start, f"{len(descriptor.extents)} extents"
    )
    return descriptor


def check_descriptor(inspection: Inspection, start: int, length: int) -> Descriptor | None:
    """Check the text at `start`; return what it says, None when that cannot be understood."""
    raw = inspection.read(start, length).partition(b"\0")
    try:
        descriptor = parse(inspection.image, start, raw[0])
    except ImageMalformed as error:
        inspection.corruption("descriptor", error.offset, error.reason)
        return None
    text = raw[0].decode("utf-8", "replace")
    inspection.advise(not any(raw[2]), "descriptor-padding", start, "text behind its end")
    values = {
        key.strip().lower(): value.strip().strip('"')
        for key, equals, value in (line.partition("=") for line in text.split("\n"))
        if equals and not key.startswith(_ACCESS)
    }
    for key in _KEYS:
        inspection.require(key in values, "descriptor", start, f"it does not say {key}")
    known = descriptor.create_type in DESCRIBED
    inspection.advise(known, "descriptor-type", start, f"type {descriptor.create_type[:60]!a}")
    long = values.get("ddb.longcontentid", "")
    if long:
        same = re.fullmatch("[0-9a-fA-F]{32}", long) is not None
        same = same and int(long[-8:], 16) == descriptor.content_id
        inspection.advise(same, "descriptor-id", start, "the long content id ends otherwise")
    return descriptor
