"""The header of a QCOW2 and its extensions: what is wrong with them, and what they tell."""

from dataclasses import dataclass, field

from imgconv.checks.inspection import Inspection
from imgconv.ondisk import qcow2 as ondisk
from imgconv.ondisk.qcow2_bitmaps import BitmapsExtension
from imgconv.units import SECTOR, div_ceil, round_up

_V2_LENGTH, _V3_LENGTH = ondisk.HeaderV2.LAYOUT.size, ondisk.V3_LENGTH
_MAX_EXTENSIONS = 1024
_KNOWN_FEATURES = (1 << 5) - 1
_SINGLE = {
    ondisk.BACKING_FORMAT: "backing format",
    ondisk.DATA_FILE_NAME: "data file",
    ondisk.FEATURE_NAMES: "feature names",
    ondisk.ENCRYPTION_HEADER: "encryption header",
    BitmapsExtension.KIND: "bitmaps",
}


@dataclass(frozen=True, slots=True)
class Area:
    """A range of the file that metadata take, and where in the file that is said."""

    what: str
    start: int
    length: int
    said_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the header says; sizes in bytes. `extensions` are offset and length by type."""

    front: ondisk.HeaderV2
    tail: ondisk.HeaderV3Tail
    file_size: int
    extensions: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def cluster(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.front.cluster_bits

    @property
    def clusters(self) -> int:
        """Clusters of the file, of which the last may be cut."""
        return div_ceil(self.file_size, self.cluster)

    @property
    def extended(self) -> bool:
        """Whether L2 entries tell of subclusters."""
        return self.has(ondisk.EXTENDED_L2)

    @property
    def external(self) -> bool:
        """Whether clusters are in another file."""
        return self.has(ondisk.DATA_FILE)

    @property
    def per_table(self) -> int:
        """Entries of an L2 table."""
        return self.cluster // (16 if self.extended else 8)

    @property
    def refcount_bits(self) -> int:
        """Width of a refcount."""
        return 1 << self.tail.refcount_order

    @property
    def per_block(self) -> int:
        """Refcounts of a block of them."""
        return self.cluster * 8 // self.refcount_bits

    def has(self, feature: int) -> bool:
        """Say whether an incompatible feature's bit is set."""
        return bool(self.tail.incompatible_features & feature)


def read_shape(inspection: Inspection) -> Shape | None:
    """Check header and extensions; return what they say, None when nothing follows from it."""
    raw = inspection.read(0, _V2_LENGTH + ondisk.HeaderV3Tail.LAYOUT.size)
    front = ondisk.HeaderV2.unpack(raw)
    if not inspection.require(front.magic == ondisk.MAGIC, "header-magic", 0, "no signature"):
        return None
    if front.version not in (2, 3):
        inspection.error("header-version", 4, f"version {front.version} is not known")
        return None
    tail = _read_tail(inspection, front.version, raw)
    if not _can_go_on(inspection, front, tail):
        return None
    _check_fields(inspection, front, tail)
    shape = Shape(front=front, tail=tail, file_size=inspection.size)
    _check_features(inspection, shape)
    _read_extensions(inspection, shape)
    return shape


def _read_tail(inspection: Inspection, version: int, raw: bytes) -> ondisk.HeaderV3Tail:
    """Return what version 3 adds; of version 2 what that stands for."""
    if version == 2:
        return ondisk.HeaderV3Tail(0, 0, 0, 4, _V2_LENGTH, 0, bytes(7))
    tail = ondisk.HeaderV3Tail.unpack(raw[_V2_LENGTH:])
    if tail.header_length == _V3_LENGTH:  # what follows are extensions
        return ondisk.HeaderV3Tail.unpack(raw[_V2_LENGTH:_V3_LENGTH].ljust(40, b"\0"))
    inspection.advise(not any(tail.padding), "header-reserved", 105, "padding is in use")
    return tail


def _can_go_on(
    inspection: Inspection, front: ondisk.HeaderV2, tail: ondisk.HeaderV3Tail
) -> bool:
    """Check what everything else depends on."""
    extended = tail.incompatible_features & ondisk.EXTENDED_L2
    least = ondisk.MIN_EXTENDED_BITS if extended else ondisk.MIN_CLUSTER_BITS
    bits, order = front.cluster_bits, tail.refcount_order
    possible = least <= bits <= ondisk.MAX_CLUSTER_BITS
    good = inspection.require(
        possible, "header-cluster-size", 20, f"clusters of 2^{bits} bytes"
    )
    good &= inspection.require(order <= 6, "header-refcount-width", 96, f"width 2^{order} bits")
    unknown = tail.incompatible_features & ~_KNOWN_FEATURES
    if unknown:
        inspection.error("header-features", 72, f"features {unknown:#x} are not known")
    long = front.l1_size * 8
    good &= inspection.require(
        long <= ondisk.MAX_L1_BYTES, "l1-size", 36, f"an L1 table of {long} bytes"
    )
    long = front.refcount_table_clusters << min(bits, 63)
    good &= inspection.require(
        0 < long <= ondisk.MAX_REFCOUNT_TABLE_BYTES,
        "refcount-table-size",
        56,
        f"a refcount table of {long} bytes",
    )
    return good and not unknown


def _check_fields(
    inspection: Inspection, front: ondisk.HeaderV2, tail: ondisk.HeaderV3Tail
) -> None:
    """Check what nothing else depends on."""
    cluster, length = 1 << front.cluster_bits, tail.header_length
    if front.version == 3:
        possible = _V3_LENGTH <= length <= cluster
        inspection.require(possible, "header-length", 100, f"a header of {length} bytes")
        inspection.advise(length % 8 == 0, "header-reserved", 100, f"header length {length}")
    inspection.advise(
        front.size % SECTOR == 0, "disk-size", 24, f"{front.size} bytes are no whole sectors"
    )
    span = cluster * (cluster // (16 if tail.incompatible_features & ondisk.EXTENDED_L2 else 8))
    needed = div_ceil(front.size, span)
    inspection.require(
        front.l1_size >= needed,
        "l1-size",
        36,
        f"{front.l1_size} L1 entries, but the disk has {needed}",
    )
    for at, start, rule in (
        (40, front.l1_table_offset, "l1-misaligned"),
        (48, front.refcount_table_offset, "refcount-table-misaligned"),
        (64, front.snapshots_offset if front.nb_snapshots else 0, "snapshots-misaligned"),
    ):
        aligned = start % cluster == 0
        inspection.require(aligned, rule, at, f"{start} is not the beginning of a cluster")
    known = front.crypt_method in (0, 1, 2)
    inspection.require(known, "header-encryption", 32, f"method {front.crypt_method}")


def _check_features(inspection: Inspection, shape: Shape) -> None:
    kind, packs = shape.tail.compression_type, shape.has(ondisk.COMPRESSION_TYPE)
    known = kind < len(ondisk.CODECS)
    if inspection.require(known, "compression-type", 104, f"there is no type {kind}"):
        agrees = packs == (kind != 0)
        text = f"type {kind} and the feature bit do not agree"
        inspection.require(agrees, "compression-type", 104, text)
    lazy = bool(shape.tail.compatible_features & ondisk.LAZY_REFCOUNTS)
    note = "it uses lazy refcounts" if lazy else "which only lazy refcounts explain"
    if shape.has(ondisk.DIRTY):
        inspection.warning("dirty", 72, f"it was not closed properly; {note}")
    if shape.has(ondisk.CORRUPT):
        inspection.corruption("marked-corrupt", 72, "its last user found it corrupt")


def _read_extensions(inspection: Inspection, shape: Shape) -> None:
    """Walk the extensions, and check the backing file's name, which they end before."""
    front, cluster = shape.front, shape.cluster
    end, name = cluster, front.backing_file_offset
    if name:
        long = front.backing_file_size
        inside = shape.tail.header_length <= name and name + long <= cluster
        good = inside and long <= ondisk.MAX_NAME
        text = f"a name of {long} bytes at {name} is not in the first cluster"
        if inspection.require(good, "backing-name", 8, text):
            end = name
    at = shape.tail.header_length
    for _ in range(_MAX_EXTENSIONS):
        raw = inspection.read(at, 8) if at + 8 <= end else bytes(8)
        kind, length = int.from_bytes(raw[:4], "big"), int.from_bytes(raw[4:], "big")
        if kind == 0:
            break
        fits = at + 8 + length <= end
        text = f"extension {kind:#x} has {length} bytes"
        if not inspection.require(fits, "extension-length", at + 4, text):
            return
        if kind in _SINGLE and kind in shape.extensions:
            inspection.corruption("extension-twice", at, f"a second {_SINGLE[kind]}")
        shape.extensions[kind] = at + 8, length
        at += 8 + round_up(length, 8)
    else:
        inspection.corruption("extension-length", at, f"more than {_MAX_EXTENSIONS} extensions")
    _check_extensions(inspection, shape)


def _check_extensions(inspection: Inspection, shape: Shape) -> None:
    extensions = shape.extensions
    if shape.external and ondisk.DATA_FILE_NAME not in extensions:
        inspection.warning("data-file-name", 72, "its data are in a file without a name")
    for kind, size in ((ondisk.FEATURE_NAMES, 48), (ondisk.ENCRYPTION_HEADER, 16)):
        at, length = extensions.get(kind, (0, 0))
        text = f"{_SINGLE[kind]} of {length} bytes"
        inspection.require(length % size == 0, "extension-length", at, text)
    for kind in (ondisk.BACKING_FORMAT, ondisk.DATA_FILE_NAME):
        at, length = extensions.get(kind, (0, 0))
        inspection.require(length <= ondisk.MAX_NAME, "extension-length", at, f"{length} bytes")
