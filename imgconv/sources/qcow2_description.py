"""What the header of a QCOW2 image says, whether or not the image can be read."""

from imgconv.errors import one_line
from imgconv.ondisk import qcow2 as ondisk
from imgconv.sources.checked import ImageFile
from imgconv.sources.description import (
    BACKING,
    DATA,
    Description,
    InnerSnapshot,
    Options,
    Reference,
)
from imgconv.sources.qcow2 import KNOWN_FEATURES, encryption
from imgconv.sources.qcow2_header import Header, read_header
from imgconv.sources.qcow2_snapshots import read_snapshots


def describe_qcow2(image: ImageFile) -> Description:
    """Read header and snapshot table.

    Raises ImageMalformed, ImageUnsupported for other versions, and what reading raises.
    """
    header = read_header(image)
    size, odd = image.rounded(header.front.size)
    return Description(
        virtual_size=size,
        version=str(header.front.version),
        options=_options(header),
        references=_references(header),
        encryption=encryption(header.front),
        dirty=header.has(ondisk.DIRTY),
        corrupt=header.has(ondisk.CORRUPT),
        snapshots=_snapshots(image, header),
        warnings=odd + _warnings(image, header),
    )


def _options(header: Header) -> Options:
    tail = header.tail
    found: Options = {
        "cluster_size": 1 << header.front.cluster_bits,
        "refcount_bits": 1 << tail.refcount_order,
        "compat": "0.10" if header.front.version == 2 else "1.1",
        "compression_type": ondisk.CODECS[tail.compression_type],
        "extended_l2": header.has(ondisk.EXTENDED_L2),
        "lazy_refcounts": bool(tail.compatible_features & ondisk.LAZY_REFCOUNTS),
    }
    if header.has(ondisk.DATA_FILE):
        found["data_file_raw"] = bool(tail.autoclear_features & ondisk.RAW_DATA_FILE)
    return found


def _references(header: Header) -> tuple[Reference, ...]:
    found = []
    if header.backing_file is not None:
        kind = header.backing_format and one_line(header.backing_format)
        name = one_line(header.backing_file)
        found.append(Reference(role=BACKING, name=name, format=kind))
    if header.has(ondisk.DATA_FILE):
        name = one_line(header.data_file or "")
        found.append(Reference(role=DATA, name=name, format="raw"))
    return tuple(found)


def _snapshots(image: ImageFile, header: Header) -> tuple[InnerSnapshot, ...]:
    return tuple(
        InnerSnapshot(
            id=one_line(found.id),
            name=one_line(found.name),
            date=found.date,
            vm_state_size=found.vm_state_size,
            disk_size=found.disk_size,
        )
        for found in read_snapshots(image, header.front)
    )


def _warnings(image: ImageFile, header: Header) -> tuple[str, ...]:
    unknown = header.tail.incompatible_features & ~KNOWN_FEATURES
    if not unknown:
        return ()
    return (f"{image.file.name}: needs features that are not known ({unknown:#x})",)
