"""Where a QCOW2 keeps its metadata: refcount blocks, L1 and L2 tables, snapshots."""

from dataclasses import dataclass, field

import numpy as np

from imgconv.checks.findings import Told
from imgconv.checks.inspection import Inspection
from imgconv.checks.qcow2_bitmaps import read_bitmaps
from imgconv.checks.qcow2_header import Area, Shape
from imgconv.ondisk import qcow2 as ondisk
from imgconv.ondisk.qcow2_snapshots import SNAPSHOT_EXTRA, SnapshotHeader
from imgconv.ranges import Column, Mask, counting
from imgconv.units import SECTOR, GiB, MiB, round_up

MAX_SNAPSHOTS, MAX_EXTRA = 65536, 1024
MAX_L1_ENTRIES = 1 << 26  # of all snapshots together
MAX_TABLE_BYTES = 64 * GiB  # of distinct L2 tables
MAX_LUKS = 64 * MiB
_GATHER = 1 << 20  # entries of L1 tables that are kept before equal ones become one
_ENTRY = "an entry {:#x}"
_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """L2 tables, each once, ascending: `weight` L1 entries refer to it, `active` ones among
    them; `said_at` is where one of these is."""

    place: Column
    weight: Column
    active: Column
    said_at: Column

    @classmethod
    def merged(cls, parts: "list[Tables]") -> "Tables":
        """Make one of each table."""
        place = np.concatenate([_NONE, *(p.place for p in parts)])
        found, first, row = np.unique(place, return_index=True, return_inverse=True)
        weight, active = (
            np.bincount(row, np.concatenate([_NONE, *columns]), len(found)).astype(np.int64)
            for columns in ([p.weight for p in parts], [p.active for p in parts])
        )
        return cls(
            found, weight, active, np.concatenate([_NONE, *(p.said_at for p in parts)])[first]
        )


@dataclass(slots=True, eq=False, kw_only=True)
class Metadata:
    """All of it, what does not lie in the file left out.

    `blocks` has the offset of each refcount block by its number, 0 where there is none.
    `l1` are the entries of the active L1 table, `l1_at` where each is. `scattered` are
    single clusters that hold the content of bitmaps.
    """

    areas: list[Area] = field(default_factory=list)
    blocks: Column = field(default_factory=_NONE.copy)
    l1: Column = field(default_factory=_NONE.copy)
    l1_at: Column = field(default_factory=_NONE.copy)
    tables: Tables = field(default_factory=lambda: Tables.merged([]))
    scattered: Column = field(default_factory=_NONE.copy)
    scattered_at: Column = field(default_factory=_NONE.copy)


@dataclass(frozen=True, slots=True, eq=False)
class Owners:
    """Clusters, by number, that hold metadata: how many references each has from these, and
    where one of them is. `alone` are those that qemu, too, wants to have no other ever."""

    number: Column
    own: Column
    said_at: Column
    alone: bool = False


def owners(shape: Shape, found: Metadata) -> list[Owners]:
    """Return all clusters that hold metadata, by their kinds."""
    cluster = shape.cluster
    areas = [area for area in found.areas if area.length]
    first = np.array([area.start // cluster for area in areas], dtype=np.int64)
    last = np.array([(a.start + a.length - 1) // cluster for a in areas], dtype=np.int64)
    count, said_at = last + 1 - first, np.array([area.said_at for area in areas])
    spans = np.repeat(first, count) + counting(count)
    blocks = np.flatnonzero(found.blocks)
    blocks_at = _refcount_table_start(shape) + 8 * blocks
    tables = found.tables
    return [
        Owners(spans, np.ones_like(spans), np.repeat(said_at, count)),
        Owners(tables.place // cluster, tables.weight, tables.said_at),
        Owners(found.scattered // cluster, np.ones_like(found.scattered), found.scattered_at),
        Owners(found.blocks[blocks] // cluster, np.ones_like(blocks), blocks_at, alone=True),
    ]


def read_metadata(inspection: Inspection, shape: Shape) -> Metadata:
    """Read all but L2 tables and refcounts; record what is wrong with it."""
    front, found = shape.front, Metadata()
    table = front.refcount_table_clusters * shape.cluster
    found.areas = [
        Area("the header", 0, shape.cluster, 0),
        Area("the L1 table", front.l1_table_offset, 8 * front.l1_size, 40),
        Area("the refcount table", front.refcount_table_offset, table, 48),
    ]
    found.blocks = _read_refcount_table(inspection, shape, table)
    found.l1, found.l1_at, active = _read_l1(inspection, shape, found.areas[1], True)
    snapshots, tables = _read_snapshots(inspection, shape)
    found.areas += snapshots
    found.tables = _within_budget(inspection, shape, Tables.merged([active, tables]))
    at, length = shape.extensions.get(ondisk.ENCRYPTION_HEADER, (0, 0))
    if length >= 16:
        start, long = (int.from_bytes(inspection.read(at + i, 8), "big") for i in (0, 8))
        text = f"an encryption header of {long} bytes"
        if inspection.require(long <= MAX_LUKS, "encryption-header", at + 8, text):
            found.areas.append(Area("the encryption header", start, long, at))
    areas, found.scattered, found.scattered_at = read_bitmaps(inspection, shape)
    found.areas += areas
    found.areas = [area for area in found.areas if _is_inside(inspection, shape, area)]
    return found


def _is_inside(inspection: Inspection, shape: Shape, area: Area) -> bool:
    """Say whether an area lies in the file, where the last cluster need not be whole."""
    beyond = area.start + area.length - shape.file_size
    text = f"{area.what} would end {beyond} bytes beyond the end of the file"
    return inspection.require(beyond < shape.cluster, "area-beyond-end", area.said_at, text)


def _within_budget(inspection: Inspection, shape: Shape, tables: Tables) -> Tables:
    most = MAX_TABLE_BYTES // shape.cluster
    if len(tables.place) <= most:
        return tables
    text = f"{len(tables.place)} L2 tables, of which {most} are checked"
    inspection.error("too-large", shape.front.l1_table_offset, text)
    columns = tables.place, tables.weight, tables.active, tables.said_at
    return Tables(*(column[:most] for column in columns))


def _refcount_table_start(shape: Shape) -> int:
    """Where the refcount table is. One beyond the file is all zeros wherever it is said to be,
    which a column may be too narrow to hold; it is taken to be at the file's end."""
    return min(shape.front.refcount_table_offset, shape.file_size)


def _read_refcount_table(inspection: Inspection, shape: Shape, length: int) -> Column:
    """Return the offsets of refcount blocks, 0 for those that are not usable."""
    start = _refcount_table_start(shape)
    entries = np.frombuffer(inspection.read(start, length), dtype=">u8").astype(np.int64)
    used = np.flatnonzero(entries)
    values, at = entries[used], start + 8 * used
    reserved = (values & (SECTOR - 1)) != 0
    inspection.corruptions("refcount-table-reserved", reserved, at, Told(_ENTRY, values))
    values = values & -SECTOR
    misaligned = values % shape.cluster != 0
    inspection.corruptions("refcount-block-misaligned", misaligned, at, Told(_ENTRY, values))
    beyond = (values < 0) | (values >= shape.clusters * shape.cluster)
    beyond &= ~misaligned
    inspection.corruptions("refcount-block-beyond-end", beyond, at, Told(_ENTRY, values))
    late = used * shape.per_block >= shape.clusters
    inspection.warnings("refcount-past-end", late, at, lambda _: "clusters beyond the file")
    entries[used] = np.where(misaligned | beyond, 0, values)
    return entries


def _read_l1(
    inspection: Inspection, shape: Shape, area: Area, active: bool
) -> tuple[Column, Column, Tables]:
    """Return the entries of an L1 table, where they are, and the tables they mean."""
    nothing = _NONE, _NONE, Tables.merged([])
    if not area.length or area.start >= shape.file_size or area.start < 0:
        return nothing
    raw = inspection.read(area.start, area.length)
    entries = np.frombuffer(raw, dtype=">u8").astype(np.int64)
    used = np.flatnonzero(entries)
    values, at = entries[used], area.start + 8 * used
    text = Told(_ENTRY, values)
    inspection.corruptions("l1-reserved", (values & ondisk.L1_RESERVED) != 0, at, text)
    place = values & ondisk.OFFSET
    nowhere: Mask = place == 0
    inspection.corruptions("l1-nowhere", nowhere, at, text)
    misaligned = place % shape.cluster != 0
    inspection.corruptions("l2-misaligned", misaligned, at, text)
    beyond = ~misaligned & (place + shape.cluster > round_up(shape.file_size, SECTOR))
    inspection.corruptions("l2-beyond-end", beyond, at, text)
    good = ~(nowhere | misaligned | beyond)
    one = np.ones(int(good.sum()), dtype=np.int64)
    tables = Tables(place[good], one, one * active, at[good])
    return values[~nowhere], at[~nowhere], tables


def _read_snapshots(inspection: Inspection, shape: Shape) -> tuple[list[Area], Tables]:
    """Return the snapshots' table, their L1 tables, and the L2 tables these mean."""
    front, head = shape.front, SnapshotHeader
    areas, tables, total, pending = list[Area](), list[Tables](), 0, 0
    at = start = front.snapshots_offset
    text = f"{front.nb_snapshots} snapshots"
    if not inspection.require(front.nb_snapshots <= MAX_SNAPSHOTS, "snapshots", 60, text):
        return areas, Tables.merged([])
    if front.nb_snapshots and shape.external:
        inspection.corruption("snapshots", 60, f"{text} of data in another file")
    ids = set[bytes]()
    for number in range(front.nb_snapshots):
        record = head.unpack(inspection.read(at, head.LAYOUT.size))
        long = head.LAYOUT.size + record.extra_size + record.id_size + record.name_size
        good = record.extra_size <= MAX_EXTRA and inspection.holds(at, long)
        if not inspection.require(good, "snapshot-entry", at, f"snapshot {number} is cut"):
            break
        name = at + head.LAYOUT.size + record.extra_size
        _check_snapshot(
            inspection, shape, record, inspection.read(name, record.id_size), at, ids
        )
        area = Area(f"L1 table of snapshot {number}", record.l1_table_offset, 0, at)
        at += round_up(long, 8)
        area = _snapshot_l1(inspection, shape, record, area)
        total += record.l1_size
        if total > MAX_L1_ENTRIES:
            inspection.error("too-large", area.said_at, f"snapshots from {number} on")
            break
        areas.append(area)
        tables.append(_read_l1(inspection, shape, area, False)[2])
        pending += len(tables[-1].place)
        if pending > _GATHER:
            tables, pending = [Tables.merged(tables)], 0
    if at > start:
        areas.append(Area("the snapshot table", start, at - start, 64))
    return areas, Tables.merged(tables)


def _check_snapshot(
    inspection: Inspection,
    shape: Shape,
    record: SnapshotHeader,
    name: bytes,
    at: int,
    names: set[bytes],
) -> None:
    short = shape.front.version == 3 and record.extra_size < SNAPSHOT_EXTRA.size
    inspection.advise(not short, "snapshot-entry", at + 36, "its disk's size is not told")
    inspection.advise(name not in names, "snapshot-id", at, f"a second snapshot {name!r}")
    names.add(name)


def _snapshot_l1(
    inspection: Inspection, shape: Shape, record: SnapshotHeader, area: Area
) -> Area:
    """Return where a snapshot's L1 table is, with no length when that cannot be."""
    start, length = record.l1_table_offset, 8 * record.l1_size
    text = f"{area.what} would be at {start}"
    if not inspection.require(
        start % shape.cluster == 0, "snapshot-l1-misaligned", area.said_at, text
    ):
        return area
    text = f"{area.what} would have {length} bytes"
    good = length <= ondisk.MAX_L1_BYTES
    if not inspection.require(good, "snapshot-l1-size", area.said_at + 8, text):
        return area
    return Area(area.what, start, length, area.said_at)
