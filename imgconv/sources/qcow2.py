"""QCOW2 images: versions 2 and 3, of every cluster size, compressed or not.

Refcounts are not read: that no cluster serves two purposes is found out from the tables.
"""

from dataclasses import replace

from imgconv.codecs import inflate, unzstd
from imgconv.errors import ImageUnsupported
from imgconv.ondisk import qcow2 as ondisk
from imgconv.sources.base import Source
from imgconv.sources.checked import ImageFile
from imgconv.sources.packed import PackedSource, Unpack
from imgconv.sources.qcow2_snapshots import choose_snapshot
from imgconv.sources.qcow2_tables import Geometry, read_tables
from imgconv.units import SECTOR, div_ceil, round_up

_CRYPT = {1: "AES", 2: "LUKS"}
_MIN_EXTENDED_BITS = 14
_V3_LENGTH = 104  # of the shortest header of version 3
_MAX_NAME = 1023
_KNOWN_FEATURES = (
    ondisk.DIRTY
    | ondisk.CORRUPT
    | ondisk.DATA_FILE
    | ondisk.COMPRESSION_TYPE
    | ondisk.EXTENDED_L2
)


def open_qcow2(image: ImageFile) -> Source:
    """Read header and tables, and return the disk in its present state.

    Raises ImageMalformed, ImageUnsupported for one that is encrypted, marked corrupt, needs
    another file or is too large, and what reading the file raises.
    """
    front = image.read(0, ondisk.HeaderV2.LAYOUT.size, "the header")
    header = ondisk.HeaderV2.unpack(front)
    image.check(header.magic == ondisk.MAGIC, 0, "no signature of a QCOW2")
    tail = _read_tail(image, header)
    _check_header(image, header, tail)
    _refuse_unsupported(image, header, tail)
    if image.options.snapshot is not None:
        header = _as_it_was(image, header, image.options.snapshot)
    geometry = Geometry(
        version=header.version,
        cluster=1 << header.cluster_bits,
        extended=bool(tail.incompatible_features & ondisk.EXTENDED_L2),
        size=header.size,
    )
    needed = div_ceil(header.size, geometry.table_span)
    image.check(
        header.l1_size >= needed, 36, f"{header.l1_size} L1 entries, but the disk has {needed}"
    )
    mapping, packed, warnings = read_tables(image, header, geometry)
    if tail.incompatible_features & ondisk.DIRTY:
        warnings += (f"{image.file.name}: was not closed properly; its refcounts may be wrong",)
    size = round_up(header.size, SECTOR)
    unpack = _unpack(tail.compression_type, geometry.cluster)
    return PackedSource(image, size, mapping, packed, unpack, warnings)


def _read_tail(image: ImageFile, header: ondisk.HeaderV2) -> ondisk.HeaderV3Tail:
    """Return what version 3 adds, of version 2 what that stands for."""
    if header.version == 2:
        return ondisk.HeaderV3Tail(0, 0, 0, 4, ondisk.HeaderV2.LAYOUT.size, 0, bytes(7))
    if header.version != 3:
        raise ImageUnsupported(
            f"{image.file.name}: a QCOW of version {header.version}; only 2 and 3 are known"
        )
    at = ondisk.HeaderV2.LAYOUT.size
    raw = image.read(at, ondisk.HeaderV3Tail.LAYOUT.size, "the header")
    tail = ondisk.HeaderV3Tail.unpack(raw)
    image.check(tail.header_length >= _V3_LENGTH, 100, "the header is too short")
    if tail.header_length == _V3_LENGTH:  # what follows are extensions
        tail = ondisk.HeaderV3Tail.unpack(raw[: _V3_LENGTH - at].ljust(len(raw), b"\0"))
    return tail


def _check_header(image: ImageFile, header: ondisk.HeaderV2, tail: ondisk.HeaderV3Tail) -> None:
    """Refuse what cannot be."""
    least, most = ondisk.MIN_CLUSTER_BITS, ondisk.MAX_CLUSTER_BITS
    if tail.incompatible_features & ondisk.EXTENDED_L2:
        least = _MIN_EXTENDED_BITS
    bits = header.cluster_bits
    image.check(least <= bits <= most, 20, f"clusters of 2^{bits} bytes")
    image.check(tail.header_length <= 1 << bits, 100, "the header is longer than a cluster")
    image.check(tail.refcount_order <= 6, 96, f"refcounts of 2^{tail.refcount_order} bits")
    image.check(header.size > 0, 24, "the disk has no size")
    image.check_size(header.size)
    packs = bool(tail.incompatible_features & ondisk.COMPRESSION_TYPE)
    known = tail.compression_type < len(ondisk.CODECS)
    image.check(known, 104, f"there is no compression type {tail.compression_type}")
    agrees = packs == (tail.compression_type != 0)
    image.check(agrees, 104, "compression type and feature bit do not agree")


def _refuse_unsupported(
    image: ImageFile, header: ondisk.HeaderV2, tail: ondisk.HeaderV3Tail
) -> None:
    """Refuse what needs a key or another file, or cannot be trusted."""
    name, features = image.file.name, tail.incompatible_features
    if header.crypt_method:
        method = _CRYPT.get(header.crypt_method, f"method {header.crypt_method}")
        raise ImageUnsupported(f"{name}: is encrypted ({method})")
    if unknown := features & ~_KNOWN_FEATURES:
        raise ImageUnsupported(f"{name}: needs features that are not known ({unknown:#x})")
    if features & ondisk.CORRUPT:
        raise ImageUnsupported(f"{name}: is marked corrupt; repair it first")
    data_file = _data_file_name(image, header, tail)
    if features & ondisk.DATA_FILE:
        raise ImageUnsupported(f"{name}: its data are in another file, {data_file}")
    if header.backing_file_offset:
        raise ImageUnsupported(f"{name}: needs its backing file, {_backing(image, header)}")


def _as_it_was(image: ImageFile, header: ondisk.HeaderV2, wanted: str) -> ondisk.HeaderV2:
    """Return the header with the disk's size and L1 table at the time of a snapshot."""
    found = choose_snapshot(image, header, wanted)
    image.check(found.disk_size > 0, found.at, "the snapshot's disk has no size")
    image.check_size(found.disk_size)
    return replace(
        header,
        size=found.disk_size,
        l1_table_offset=found.l1_table_offset,
        l1_size=found.l1_size,
    )


def _backing(image: ImageFile, header: ondisk.HeaderV2) -> str:
    at, length = header.backing_file_offset, header.backing_file_size
    image.check(length <= _MAX_NAME, 16, f"a backing file's name of {length} bytes")
    inside = at + length <= 1 << header.cluster_bits
    image.check(inside, 8, "the backing file's name is not in the first cluster")
    return ascii(image.read(at, length, "the backing file's name").decode(errors="replace"))


def _data_file_name(
    image: ImageFile, header: ondisk.HeaderV2, tail: ondisk.HeaderV3Tail
) -> str:
    """Walk the header's extensions; return what they call an external data file."""
    at, found = tail.header_length, "without a name"
    end = min(header.backing_file_offset or image.file.size, 1 << header.cluster_bits)
    while at + 8 <= end:
        raw = image.read(at, 8, "a header extension")
        kind, length = int.from_bytes(raw[:4], "big"), int.from_bytes(raw[4:], "big")
        if kind == 0:
            break
        image.check(at + 8 + length <= end, at + 4, f"a header extension of {length} bytes")
        if kind == ondisk.DATA_FILE_NAME:
            name = image.read(at + 8, min(length, _MAX_NAME), "a name")
            found = ascii(name.decode(errors="replace"))
        at += 8 + round_up(length, 8)
    return found


def _unpack(compression_type: int, cluster: int) -> Unpack:
    """Return what decodes a cluster, always whole, and gives as much of it as is wanted."""
    decode = inflate if compression_type == 0 else unzstd

    def unpack(stream: memoryview, _: int, wanted: int) -> bytes:
        return decode(stream, cluster)[:wanted]

    return unpack
