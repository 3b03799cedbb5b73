"""What header and descriptor of a VMDK say, whether or not its extents are there."""

import re

from imgconv.errors import one_line
from imgconv.ondisk import vmdk as ondisk
from imgconv.ondisk import vmdk_esx as esx
from imgconv.sources.checked import ImageFile
from imgconv.sources.description import (
    EXTENT,
    PARENT,
    Description,
    Options,
    Reference,
)
from imgconv.sources.vmdk import ALONE, descriptor_text
from imgconv.sources.vmdk_descriptor import Descriptor, parse
from imgconv.sources.vmdk_sparse import read_header
from imgconv.units import SECTOR

_VALUE = '^[ \\t]*{}[ \\t]*=[ \\t]*"?([^"\\r\\n]*)'


def describe_vmdk(image: ImageFile) -> Description:
    """Say what header and descriptor tell, of a part of a disk what its header does.

    Raises ImageMalformed, ImageUnsupported for versions and flags not known, and what
    reading the file raises.
    """
    front = image.read(0, min(SECTOR, image.file.size), "the header")
    if front.startswith(ondisk.MAGIC):
        return _describe_sparse(image)
    if front.startswith(esx.COWD_MAGIC):
        cowd = esx.CowdHeader.unpack(front)
        return _describe_part(image, str(cowd.version), cowd.capacity, cowd.grain_size)
    if front.startswith(esx.SESPARSE_FRONT):
        space = esx.SeSparseHeader.unpack(front)
        version = f"{space.version >> 32}.{space.version & 0xFFFFFFFF}"
        return _describe_part(image, version, space.capacity, space.grain_size)
    image.check(front.startswith(ondisk.TEXT_MAGICS), 0, "neither an extent nor a descriptor")
    at, text = descriptor_text(image)
    descriptor = parse(image, at, text)
    return Description(
        virtual_size=_total(descriptor),
        version=_value(text, "version"),
        options=_options(descriptor, text),
        references=_references(descriptor),
        encryption=_encryption(descriptor),
    )


def _describe_sparse(image: ImageFile) -> Description:
    header = read_header(image)
    dirty = header.unclean_shutdown == 1
    at, text = descriptor_text(image) if header.descriptor_offset else (0, b"")
    if not text.strip(b"\0"):
        return _describe_part(
            image, str(header.version), header.capacity, header.grain_size, dirty=dirty
        )
    descriptor = parse(image, at, text)
    size = header.capacity * SECTOR
    return Description(
        virtual_size=size if descriptor.create_type in ALONE else _total(descriptor),
        version=str(header.version),
        options=_options(descriptor, text) | {"grain_size": header.grain_size * SECTOR},
        references=_references(descriptor),
        encryption=_encryption(descriptor),
        dirty=dirty,
    )


def _describe_part(
    image: ImageFile, version: str, capacity: int, grain: int, dirty: bool | None = None
) -> Description:
    return Description(
        virtual_size=capacity * SECTOR,
        version=version,
        options={"grain_size": grain * SECTOR},
        dirty=dirty,
        warnings=(f"{image.file.name}: a part of a disk; its descriptor is in another file",),
    )


def _options(descriptor: Descriptor, text: bytes) -> Options:
    found: Options = {"subformat": one_line(descriptor.create_type)}
    if (adapter := _value(text, "ddb.adapterType")) is not None:
        found["adapter_type"] = adapter
    if descriptor.create_type in ALONE and len(descriptor.extents) == 1:
        found["extent_name"] = one_line(descriptor.extents[0].name)
    return found


def _references(descriptor: Descriptor) -> tuple[Reference, ...]:
    found = []
    if descriptor.create_type not in ALONE:
        names = dict.fromkeys(extent.name for extent in descriptor.extents if extent.name)
        found = [Reference(role=EXTENT, name=one_line(name)) for name in names]
    if descriptor.has_parent:
        name = one_line(descriptor.parent_name)
        found.append(Reference(role=PARENT, name=name, format="vmdk"))
    return tuple(found)


def _total(descriptor: Descriptor) -> int:
    return SECTOR * sum(extent.sectors for extent in descriptor.extents)


def _value(text: bytes, key: str) -> str | None:
    """Return what the text says first of a key that does not matter for reading."""
    pattern = _VALUE.format(re.escape(key)).encode()
    found = re.search(pattern, text.partition(b"\0")[0], re.MULTILINE | re.IGNORECASE)
    return one_line(found[1].decode("utf-8", "replace").strip()) if found else None


def _encryption(descriptor: Descriptor) -> str | None:
    return None if descriptor.encryption is None else "VMware"
