"""QCOW2 images: versions 2 and 3, of every cluster size, compressed or not, with the files
they need where these are allowed.

Refcounts are not read: that no cluster serves two purposes is found out from the tables.
"""

from collections.abc import Callable
from dataclasses import replace

from imgconv.codecs import inflate, system_zstd, unzstd
from imgconv.errors import ImageEncrypted, ImageUnsupported
from imgconv.ondisk import qcow2 as ondisk
from imgconv.sources.base import Source
from imgconv.sources.checked import ImageFile
from imgconv.sources.layered import Layer
from imgconv.sources.mapped import MappedSource
from imgconv.sources.packed import PackedSource, Unpack, one_by_one
from imgconv.sources.qcow2_header import Header, read_header
from imgconv.sources.qcow2_tables import Geometry, Tables, read_tables
from imgconv.sources.references import open_below, open_reference
from imgconv.units import div_ceil

_CRYPT = {1: "AES", 2: "LUKS"}
KNOWN_FEATURES = (
    ondisk.DIRTY
    | ondisk.CORRUPT
    | ondisk.DATA_FILE
    | ondisk.COMPRESSION_TYPE
    | ondisk.EXTENDED_L2
)


def open_qcow2(image: ImageFile) -> Source:
    """Read header and tables, and return the disk in its present state, or in a snapshot's.

    Raises ImageMalformed, ImageUnsupported for one that is encrypted, marked corrupt, too
    large or needs files that are not allowed, and what reading a file raises.
    """
    header = read_header(image)
    _refuse_unsupported(image, header)
    front = header.front
    if image.options.snapshot is not None:
        front = _as_it_was(image, front, image.options.snapshot)
    if not header.has(ondisk.DATA_FILE):
        layer = _open_layer(image, header, front, None)
    else:
        data = open_reference(image, header.data_file or "", "its data file")
        try:
            layer = _open_layer(image, header, front, data)
        except BaseException:
            data.close()
            raise
    if header.backing_file is None:
        return layer.source
    try:
        return layer.over(_open_backing(image, header.backing_file, header.backing_format))
    except BaseException:
        layer.source.close()
        raise


def encryption(front: ondisk.HeaderV2) -> str | None:
    """Return the name of the method by which the disk is encrypted, None if it is not."""
    if not front.crypt_method:
        return None
    return _CRYPT.get(front.crypt_method, f"method {front.crypt_method}")


def _refuse_unsupported(image: ImageFile, header: Header) -> None:
    """Refuse what needs a key, or cannot be trusted."""
    name = image.file.name
    if (method := encryption(header.front)) is not None:
        raise ImageEncrypted(f"{name}: is encrypted ({method})")
    if unknown := header.tail.incompatible_features & ~KNOWN_FEATURES:
        raise ImageUnsupported(f"{name}: needs features that are not known ({unknown:#x})")
    if header.has(ondisk.CORRUPT):
        raise ImageUnsupported(f"{name}: is marked corrupt; repair it first")
    if header.has(ondisk.DATA_FILE) and not header.data_file:
        raise ImageUnsupported(f"{name}: its data are in another file, without a name")


def _as_it_was(image: ImageFile, front: ondisk.HeaderV2, wanted: str) -> ondisk.HeaderV2:
    """Return the header with the disk's size and L1 table at the time of a snapshot."""
    from imgconv.sources.qcow2_snapshots import choose_snapshot

    found = choose_snapshot(image, front, wanted)
    image.check(found.disk_size > 0, found.at, "the snapshot's disk has no size")
    image.check_size(found.disk_size)
    return replace(
        front,
        size=found.disk_size,
        l1_table_offset=found.l1_table_offset,
        l1_size=found.l1_size,
    )


def _open_layer(
    image: ImageFile, header: Header, front: ondisk.HeaderV2, data: Source | None
) -> Layer:
    """Return what this image says of the disk, whose clusters may be in a file of their own."""
    geometry = Geometry(
        version=front.version,
        cluster=1 << front.cluster_bits,
        extended=header.has(ondisk.EXTENDED_L2),
        size=front.size,
        room=(data or image.file).size,
        external=data is not None,
        layered=header.backing_file is not None,
    )
    needed = div_ceil(front.size, geometry.table_span)
    image.check(
        front.l1_size >= needed, 36, f"{front.l1_size} L1 entries, but the disk has {needed}"
    )
    tables = read_tables(image, front, geometry)
    return Layer(_source(image, header, geometry, tables, data), tables.own)


def _source(
    image: ImageFile, header: Header, geometry: Geometry, tables: Tables, data: Source | None
) -> Source:
    size, odd = image.rounded(geometry.size)
    warnings = odd + tables.warnings
    if header.has(ondisk.DIRTY):
        warnings += (f"{image.file.name}: was not closed properly; its refcounts may be wrong",)
    if data is not None:
        from imgconv.sources.joined import JoinedSource, Part

        whole = Part(size, MappedSource(data, size, tables.mapping))
        return JoinedSource(image.file, (whole,), warnings)
    deflated = header.tail.compression_type == 0
    unpack = _unpack(inflate if deflated else unzstd, geometry.cluster)
    library = None if deflated else system_zstd()
    unpack_many = one_by_one if library is None else library.decode
    return PackedSource(
        image, size, tables.mapping, tables.packed, unpack, warnings, unpack_many
    )


def _open_backing(image: ImageFile, name: str, format_name: str | None) -> Source:
    present = replace(image, options=replace(image.options, snapshot=None))
    return open_below(present, name, "its backing file", format_name)


def _unpack(decode: Callable[[memoryview, int], memoryview], cluster: int) -> Unpack:
    """Return what decodes a cluster, always whole, and gives as much of it as is wanted."""

    def unpack(stream: memoryview, _: int, wanted: int) -> memoryview:
        return decode(stream, cluster)[:wanted]

    return unpack
