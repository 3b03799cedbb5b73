"""VMDK images: of one file, or of a descriptor and the extents that it names."""

from collections.abc import Callable

from imgconv.errors import ImageEncrypted, ImageUnsupported
from imgconv.ondisk import vmdk as ondisk
from imgconv.ondisk import vmdk_esx as esx
from imgconv.ranges import Ranges
from imgconv.sources.base import Source
from imgconv.sources.checked import ImageFile
from imgconv.sources.joined import JoinedSource, Part
from imgconv.sources.layered import Layer
from imgconv.sources.references import open_reference
from imgconv.sources.vmdk_descriptor import (
    MAX_TEXT,
    Descriptor,
    ExtentLine,
    names,
    parse,
    unsupported,
)
from imgconv.sources.vmdk_esx import open_cowd, open_sesparse
from imgconv.sources.vmdk_sparse import open_sparse, read_header
from imgconv.units import SECTOR, round_up

ALONE = "monolithicSparse", "streamOptimized"
SPLIT = ("twoGbMaxExtentSparse", "2GbMaxExtentSparse")
DESCRIBED = (
    *ALONE,
    *SPLIT,
    "monolithicFlat",
    "twoGbMaxExtentFlat",
    "2GbMaxExtentFlat",
    "vmfs",
    "vmfsThin",
    "vmfsPreallocated",
    "vmfsEagerZeroedThick",
    "vmfsSparse",
    "seSparse",
)
_ESX = ((esx.COWD_MAGIC, "COWD"), (esx.SESPARSE_FRONT, "SESPARSE"))


def open_vmdk(image: ImageFile) -> Source:
    """Read descriptor, header and grain tables, and return the disk.

    Raises ImageMalformed, ImageUnsupported for one that is too large or needs files that are
    not allowed, and what reading a file raises.
    """
    front = image.read(0, min(SECTOR, image.file.size), "the header")
    if front.startswith(ondisk.MAGIC):
        return _open_one_file(image)
    for magic, kind in _ESX:
        if front.startswith(magic):
            raise ImageUnsupported(
                f"{image.file.name}: a {kind} extent, which is a part of a disk; "
                "open the descriptor"
            )
    image.check(front.startswith(ondisk.TEXT_MAGICS), 0, "neither an extent nor a descriptor")
    descriptor = read_descriptor(image)
    if descriptor.create_type not in DESCRIBED:
        raise unsupported(image, descriptor)
    return _with_parent(image, descriptor, _open_extents(image, descriptor))


def read_descriptor(image: ImageFile) -> Descriptor:
    """Return what the descriptor says, wherever the image keeps it.

    Raises ImageEncrypted for a disk that is.
    """
    found = parse(image, *descriptor_text(image))
    if found.encryption is not None:
        raise ImageEncrypted(f"{image.file.name}: is encrypted ({found.encryption[:60]!a})")
    return found


def descriptor_text(image: ImageFile) -> tuple[int, bytes]:
    """Return the descriptor and its file offset, wherever the image keeps it."""
    front = image.read(0, min(SECTOR, image.file.size), "the header")
    start, length = 0, image.file.size
    if front.startswith(ondisk.MAGIC):
        header = ondisk.SparseHeader.unpack(front)
        if header.descriptor_offset == 0:
            raise ImageUnsupported(
                f"{image.file.name}: a part of a disk; open the descriptor, which names it"
            )
        start = header.descriptor_offset * SECTOR
        length = header.descriptor_size * SECTOR
    text = image.read(start, min(length, MAX_TEXT), "the descriptor")
    ends = length <= MAX_TEXT or b"\0" in text
    image.check(ends, start, f"a descriptor of more than {MAX_TEXT} bytes")
    return start, text


def _open_one_file(image: ImageFile) -> Source:
    header = read_header(image)
    descriptor = read_descriptor(image)
    if descriptor.create_type in SPLIT:  # the first extent of which, this one, describes all
        first = open_sparse(image, header)
        return _with_parent(image, descriptor, _open_extents(image, descriptor, first))
    if descriptor.create_type not in ALONE:
        raise unsupported(image, descriptor)
    return _with_parent(image, descriptor, open_sparse(image, header))


def _open_extents(
    image: ImageFile, descriptor: Descriptor, first: Layer | None = None
) -> Layer:
    """Open what the descriptor names, and chain it; the `first` extent may be open already,
    as the image itself is it."""
    image.check(bool(descriptor.extents), 0, "the descriptor names no extents")
    size = SECTOR * sum(line.sectors for line in descriptor.extents)
    image.check(size > 0, 0, "the disk has no size")
    image.check_size(size)
    parts, own, at = list[Part](), list[Ranges](), 0
    what, taken = f"an extent ({names(descriptor)})", set[tuple[int, int]]()
    try:
        for number, line in enumerate(descriptor.extents):
            length, offset = line.sectors * SECTOR, line.offset * SECTOR
            layer = _open_extent(image, line, what, taken, None if number else first)
            if layer is None:
                parts.append(Part(length))
                own.append(Ranges.single(at, at + length))
            else:
                parts.append(Part(length, layer.source, offset))
                part = layer.own.window(offset, offset + length)
                own.append(Ranges(part.start + at - offset, part.stop + at - offset))
            at += length
    except BaseException:
        JoinedSource(image.file, tuple(parts)).close_parts()
        raise
    return Layer(JoinedSource(image.file, tuple(parts)), Ranges.concat(own).merged())


def _open_extent(
    image: ImageFile,
    line: ExtentLine,
    what: str,
    taken: set[tuple[int, int]],
    itself: Layer | None,
) -> Layer | None:
    """Open the file that a part of the disk is in, if it is in one, and not in the image
    `itself`.

    `taken` are files of tables: one that was several parts would be read as many times.
    """
    if line.kind == "ZERO":
        return None
    if line.access == "NOACCESS":
        raise ImageUnsupported(
            f"{image.file.name}: a part of the disk, {line.name!a}, may not be accessed"
        )
    known = line.kind in ("FLAT", "VMFS") or line.kind in _SPARSE
    image.check(known, 0, f"an extent of kind {line.kind}")
    if itself is not None:
        image.check(line.kind == "SPARSE", 0, f"a first extent of kind {line.kind}, not this")
        _check_room(image, line, itself)
        return itself
    file = open_reference(image, line.name, what)
    try:
        if line.kind in ("FLAT", "VMFS"):
            layer = Layer(file, Ranges.single(0, file.size))
        else:
            image.check(line.offset == 0, 0, f"the extent {line.name!a} has an offset")
            image.check(file.inode not in taken, 0, f"{line.name!a} is two extents")
            taken.add(file.inode)
            layer = _SPARSE[line.kind](image.needed(file))
        _check_room(image, line, layer)
    except BaseException:
        file.close()
        raise
    return layer


def _check_room(image: ImageFile, line: ExtentLine, layer: Layer) -> None:
    """Refuse a file that is too short for the part of the disk that is to be in it."""
    there, needed = layer.source.size, (line.offset + line.sectors) * SECTOR
    image.check(
        needed <= round_up(there, SECTOR),
        0,
        f"the extent {line.name!a} has {there} bytes; {needed} are said to be in it",
    )


def _open_sparse_extent(image: ImageFile) -> Layer:
    return open_sparse(image, read_header(image))


_SPARSE: dict[str, Callable[[ImageFile], Layer]] = {
    "SPARSE": _open_sparse_extent,
    "VMFSSPARSE": open_cowd,
    "SESPARSE": open_sesparse,
}


def _with_parent(image: ImageFile, descriptor: Descriptor, layer: Layer) -> Source:
    """Put the disk over the one that it needs, if it needs one."""
    if not descriptor.has_parent:
        return layer.source
    try:
        return layer.over(_open_parent(image, descriptor))
    except BaseException:
        layer.source.close()
        raise


def _open_parent(image: ImageFile, descriptor: Descriptor) -> Source:
    below = open_reference(image, descriptor.parent_name, "its parent")
    try:
        parent = image.needed(below)
        found = read_descriptor(parent)
        image.check(
            found.content_id == descriptor.parent_id,
            0,
            f"its parent is to have the content id {descriptor.parent_id:08x}, "
            f"but has {found.content_id:08x}; was it modified?",
        )
        return open_vmdk(parent)
    except BaseException:
        below.close()
        raise
