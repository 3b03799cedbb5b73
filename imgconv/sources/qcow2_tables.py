"""The L1 and L2 tables of a QCOW2 image: which clusters of the guest are where."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from imgconv.errors import ImageUnsupported
from imgconv.ondisk import qcow2 as ondisk
from imgconv.ranges import Column, Mask, Ranges, counting
from imgconv.sources.checked import ImageFile
from imgconv.sources.mapped import Mapping
from imgconv.sources.packed import Packed
from imgconv.units import SECTOR, MiB, div_ceil

_WHOLE = (1 << ondisk.SUBCLUSTERS) - 1  # of the bits of subclusters
_GATHER = 4096  # clusters of which subclusters are found at once
Bits: TypeAlias = np.ndarray[Any, Any]  # of 32, or while they are checked 64
_CUT = "{}: ends within a cluster; the rest of it is zeros"


class Geometry(NamedTuple):
    """What the tables' layout and meaning follow from; sizes in bytes.

    `room` is how much there is of the file that clusters are in, which may be an `external`
    one. Of a `layered` disk it counts what it says nothing of.
    """

    version: int
    cluster: int
    extended: bool
    size: int
    room: int
    external: bool
    layered: bool

    @property
    def entry(self) -> int:
        """Bytes of an L2 entry."""
        return 16 if self.extended else 8

    @property
    def per_table(self) -> int:
        """Entries of an L2 table."""
        return self.cluster // self.entry

    @property
    def table_span(self) -> int:
        """Guest bytes that an L2 table covers."""
        return self.per_table * self.cluster


class Tables(NamedTuple):
    """Where plain and where compressed clusters are, and what is odd about them.

    `own` is what a layered disk says something of, if only that there are zeros; of another
    one it is these zeros alone.
    """

    mapping: Mapping
    packed: Packed
    own: Ranges
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Entries:
    """L2 entries that are not empty: the guest cluster's number, the entry, and the bits of
    its subclusters, of which those that say zero may have been left out.

    Those of clusters that follow one another in the guest and in the file are one: `count`
    says how many they are, so that a full disk in order needs no memory to speak of.
    """

    number: Column
    entry: Column
    bitmap: Bits
    count: Bits

    def where(self, chosen: Mask) -> "_Entries":
        """Return those for which `chosen` is true; all of them without a copy."""
        if chosen.all():
            return self
        return _Entries(*(column[chosen] for column in self._columns()))

    def joined(self, cluster: int) -> "_Entries":
        """Make one of those that follow one another and are plain."""
        plain = (self.entry & ondisk.COMPRESSED) == 0
        follows = (np.diff(self.number) == 1) & (np.diff(self.entry) == cluster)
        for wanted in (plain, self.bitmap == _WHOLE):
            follows &= wanted[1:] & wanted[:-1]
        first = np.flatnonzero(np.concatenate(([True], ~follows))[: len(self.number)])
        count = np.diff(first, append=len(self.number)).astype(np.uint32)
        allocated = (self.bitmap[first] & _WHOLE).astype(np.uint32)
        return _Entries(self.number[first], self.entry[first], allocated, count)

    def _columns(self) -> tuple[Any, ...]:
        return self.number, self.entry, self.bitmap, self.count

    @classmethod
    def concat(cls, parts: "list[_Entries]") -> "_Entries":
        """Chain entries whose numbers ascend from part to part; takes them out of the list,
        so that there are never two of all."""
        stacks = [list(column) for column in zip(*(p._columns() for p in parts), strict=True)]
        parts.clear()
        return cls(*(np.concatenate(stacks.pop(0)) for _ in range(len(stacks))))


class _L2(NamedTuple):
    """The L2 tables there are: their numbers, ascending, and where each is in the file."""

    number: Column
    where: Column

    def entry_at(self, geometry: Geometry, cluster: int) -> int:
        """Return where the entry of a guest cluster is in the file."""
        table, index = divmod(cluster, geometry.per_table)
        row = int(np.searchsorted(self.number, table))
        return int(self.where[row]) + index * geometry.entry


def read_tables(image: ImageFile, header: ondisk.HeaderV2, geometry: Geometry) -> Tables:
    """Read them all; raises ImageMalformed and ImageUnsupported."""
    l2 = _read_l1(image, header, geometry)
    plain, packed, own = _read_l2(image, geometry, l2)
    streams = _packed(image, header, geometry, l2, packed)
    metadata = _metadata(image, header, geometry, l2.where)
    if geometry.external:
        nowhere = plain.where(plain.count == 0)
        _check_owners(image, geometry, l2, metadata, nowhere, streams)
        _check_owners(image, geometry, l2, metadata[:0], plain, streams)
    else:
        _check_owners(image, geometry, l2, metadata, plain, streams)
    found = _mapping(image, geometry, plain)
    del plain, packed  # of a large disk, as much memory as what is still to come
    mapping, whole = _clipped(geometry, found)
    if not geometry.layered:
        mapping = replace(mapping, zeros=own)
    return Tables(mapping, streams, own, () if whole else (_CUT.format(image.file.name),))


def _read_l1(image: ImageFile, header: ondisk.HeaderV2, geometry: Geometry) -> _L2:
    """Return which L2 tables there are, and where."""
    start, length = header.l1_table_offset, 8 * header.l1_size
    if length > ondisk.MAX_L1_BYTES:
        raise ImageUnsupported(f"{image.file.name}: its L1 table has {length} bytes")
    image.check(start % geometry.cluster == 0, 40, "the L1 table does not begin a cluster")
    image.check_inside(start, length, 40, "the L1 table")
    needed = 8 * div_ceil(geometry.size, geometry.table_span)
    raw = np.frombuffer(image.read(start, needed, "the L1 table"), dtype=">u8").astype(np.int64)
    used = np.flatnonzero(raw)
    places = raw[used] & ondisk.OFFSET
    wrong = (raw[used] & ondisk.L1_RESERVED != 0) | (places == 0)
    wrong |= places % geometry.cluster != 0
    wrong |= places + geometry.cluster > image.file.size
    for row in used[wrong][:1].tolist():
        raise image.error(start + 8 * row, "an L2 table cannot be where this entry says")
    if (row := _again(places)) is not None:
        at = start + 8 * int(used[row])
        raise image.error(at, f"the L2 table at {int(places[row])} is used twice")
    return _L2(used, places)


def _read_l2(
    image: ImageFile, geometry: Geometry, l2: _L2
) -> tuple[_Entries, _Entries, Ranges]:
    """Read the tables, many at once; return the entries of plain and of compressed clusters,
    and what they all say something of, or, of a disk alone, what they say is zeros."""
    nothing = _Entries(*(np.empty(0, dtype=kind) for kind in "qqII"))
    plain, packed, own = [nothing], [nothing], list[Ranges]()
    step = max(MiB // geometry.cluster, 1)
    last = div_ceil(geometry.size, geometry.cluster)
    for low in range(0, len(l2.number), step):
        some = _L2(l2.number[low : low + step], l2.where[low : low + step])
        found = _parse(image, geometry, some)
        found = found.where(found.number < last)
        is_packed = (found.entry & ondisk.COMPRESSED) != 0
        stored = found.where(~is_packed)
        _check_entries(image, geometry, some, stored)
        stored = stored.where(_is_somewhere(geometry, stored))
        plain.append(stored.joined(geometry.cluster))
        packed.append(found.where(is_packed).joined(geometry.cluster))
        image.spend(len(plain[-1].number) + len(packed[-1].number))
        own.append(_said(geometry, found))
        image.spend(len(own[-1]))
    return _Entries.concat(plain), _Entries.concat(packed), Ranges.concat(own).merged()


def _is_somewhere(geometry: Geometry, plain: _Entries) -> Mask:
    """Say which entries have a cluster; of an external file, one may be at offset 0."""
    somewhere: Mask = (plain.entry & ondisk.OFFSET) != 0
    return somewhere | (plain.entry < 0) if geometry.external else somewhere  # COPIED is bit 63


def _said(geometry: Geometry, entries: _Entries) -> Ranges:
    """Return what entries, each of one cluster, say is zeros, and, of a layered disk, what
    they say is anything."""
    count = len(entries.number)
    if geometry.extended and count > _GATHER:  # as bits take much memory
        front = np.arange(count) < count // 2
        halves = entries.where(front), entries.where(~front)
        return Ranges.concat(_said(geometry, half) for half in halves).merged()
    packed = (entries.entry & ondisk.COMPRESSED) != 0
    if geometry.extended:
        said = np.where(packed, 0, entries.bitmap >> 32 & _WHOLE)
        data = np.where(packed, _WHOLE, entries.bitmap & _WHOLE)
    else:
        zero = (entries.entry & ondisk.ZERO) != 0
        said = np.where(zero & ~packed, _WHOLE, 0)
        data = np.where(packed | _is_somewhere(geometry, entries), _WHOLE, 0)
    if geometry.layered:
        said |= data
    whole = entries.number[said == _WHOLE] * geometry.cluster
    partly = (said != 0) & (said != _WHOLE)
    unit = geometry.cluster // ondisk.SUBCLUSTERS
    owner, index = _set_bits(said[partly])
    pieces = entries.number[partly][owner] * geometry.cluster + index * unit
    found = Ranges(whole, whole + geometry.cluster).union(Ranges(pieces, pieces + unit))
    return found.window(0, geometry.size)


def _parse(image: ImageFile, geometry: Geometry, l2: _L2) -> _Entries:
    """Return the entries in tables that are not empty, each by itself."""
    buffer = image.read_tables(l2.where, geometry.cluster)
    words = np.frombuffer(buffer, dtype=">u8").reshape(-1, geometry.entry // 8)
    used = np.flatnonzero(words.any(axis=1) if geometry.extended else words[:, 0])
    table, index = used // geometry.per_table, used % geometry.per_table
    bitmap = words[used, 1].astype(np.int64) if geometry.extended else used * 0 + _WHOLE
    number = l2.number[table] * geometry.per_table + index
    return _Entries(number, words[used, 0].astype(np.int64), bitmap, used * 0 + 1)


def _check_entries(image: ImageFile, geometry: Geometry, l2: _L2, plain: _Entries) -> None:
    """Refuse entries that say what cannot be."""
    offset, nowhere = plain.entry & ondisk.OFFSET, ~_is_somewhere(geometry, plain)
    reserved = ondisk.L2_RESERVED
    if geometry.version == 2 or geometry.extended:
        reserved |= ondisk.ZERO
    rules = [
        ((plain.entry & reserved) != 0, "reserved bits are set"),
        (offset % geometry.cluster != 0, "a cluster that does not begin at a multiple of one"),
        (offset >= geometry.room, "a cluster beyond the end of the file"),
    ]
    if geometry.extended:
        allocated, zero = plain.bitmap & _WHOLE, plain.bitmap >> 32 & _WHOLE
        rules += [
            ((allocated & zero) != 0, "a subcluster both allocated and zero"),
            ((allocated != 0) & nowhere, "subclusters of a cluster that is nowhere"),
        ]
    for wrong, reason in rules:
        for number in plain.number[wrong][:1].tolist():
            raise image.error(l2.entry_at(geometry, number), reason)


def _packed(
    image: ImageFile, header: ondisk.HeaderV2, geometry: Geometry, l2: _L2, entries: _Entries
) -> Packed:
    """Take apart the descriptors of compressed clusters."""
    bits = 70 - header.cluster_bits
    where = entries.entry & (1 << bits) - 1
    sectors = (entries.entry & ondisk.COMPRESSED - 1) >> bits
    length = (sectors + 1) * SECTOR - where % SECTOR
    again = np.zeros(len(where), dtype=np.bool_)
    if (row := _again(where)) is not None:
        again[row] = True
    for wrong, reason in (
        (where >= 0 if geometry.external else again & False, "of which the data file has none"),
        (where >= image.file.size, "beyond the end of the file"),
        (where == 0, "in the header"),
        (again, "that another cluster has, too"),
    ):
        for number in entries.number[wrong][:1].tolist():
            at = l2.entry_at(geometry, number)
            raise image.error(at, f"compressed data {reason}")
    start = entries.number * geometry.cluster
    stop = np.minimum(start + geometry.cluster, geometry.size)
    # A stream ends where the next one begins, so that no data can count many times.
    edges = np.append(np.sort(where), image.file.size)
    following = edges[np.searchsorted(edges, where, side="right")]
    return Packed(Ranges(start, stop), where, np.minimum(length, following - where))


def _again(values: Column) -> int | None:
    """Return a row whose value an earlier one has; None when all are different."""
    order = np.argsort(values, kind="stable")
    twice = order[1:][np.diff(values[order]) == 0]
    return int(twice[0]) if len(twice) else None


def _metadata(
    image: ImageFile, header: ondisk.HeaderV2, geometry: Geometry, tables: Column
) -> Column:
    """Return the host clusters, by number, that hold header and tables."""
    cluster = geometry.cluster
    length = header.refcount_table_clusters * cluster
    if length > ondisk.MAX_REFCOUNT_TABLE_BYTES:
        raise ImageUnsupported(f"{image.file.name}: its refcount table has {length} bytes")
    start = header.refcount_table_offset
    image.check(start % cluster == 0, 48, "the refcount table does not begin a cluster")
    image.check(length > 0, 56, "there is no refcount table")
    raw = image.read(start, min(length, max(image.file.size - start, 8)), "the refcount table")
    entries = np.frombuffer(raw[: len(raw) // 8 * 8], dtype=">u8").astype(np.int64)
    blocks = (entries & ondisk.OFFSET)[entries != 0]
    pieces = [(0, 1), (header.l1_table_offset, 8 * header.l1_size), (start, length)]
    if header.nb_snapshots:
        aligned = header.snapshots_offset % cluster == 0
        image.check(aligned, 64, "the snapshot table does not begin a cluster")
        pieces.append((header.snapshots_offset, 1))
    first = np.array([at // cluster for at, _ in pieces], dtype=np.int64)
    count = np.array([div_ceil(length, cluster) for _, length in pieces], dtype=np.int64)
    spans = np.repeat(first, count) + counting(count)
    return np.concatenate((spans, blocks // cluster, tables // cluster))


def _check_owners(
    image: ImageFile,
    geometry: Geometry,
    l2: _L2,
    metadata: Column,
    plain: _Entries,
    streams: Packed,
) -> None:
    """Refuse an image of which a cluster has two uses; compressed data may share one."""
    first = np.concatenate((plain.entry, metadata * geometry.cluster))
    first &= ondisk.OFFSET
    first //= geometry.cluster
    order = np.argsort(first, kind="stable")  # so that data come before metadata
    first = first[order]
    stop = np.concatenate((plain.count, np.ones(len(metadata), np.uint32)))[order] + first
    for row in np.flatnonzero(first[1:] < stop[:-1])[:1].tolist():
        number = int(first[row + 1])
        rows = [r for r in order[row : row + 2].tolist() if r < len(plain.number)]
        at = l2.entry_at(geometry, int(plain.number[rows[-1]])) if rows else None
        where = number * geometry.cluster
        raise image.error(at or where, f"the cluster at {where} has two uses")
    low = np.searchsorted(stop, streams.where // geometry.cluster, side="right")
    last = (streams.where + streams.length - 1) // geometry.cluster
    crossed = low < np.searchsorted(first, last, side="right")
    for start in streams.guest.start[crossed][:1].tolist():
        at = l2.entry_at(geometry, start // geometry.cluster)
        raise image.error(at, "compressed data lie in a cluster with another use")


def _mapping(image: ImageFile, geometry: Geometry, plain: _Entries) -> Mapping:
    """Return what of the guest reads as data."""
    plain = plain.where((plain.entry & ondisk.ZERO) == 0)
    allocated = plain.bitmap & _WHOLE
    whole = plain.where(allocated == _WHOLE)
    begin = whole.number * geometry.cluster
    end = whole.count.astype(np.int64)
    end *= geometry.cluster
    end += begin
    np.minimum(end, geometry.size, out=end)
    parts = [Mapping(Ranges(begin, end), whole.entry & ondisk.OFFSET)]
    if not geometry.extended:
        return parts[0]
    rest = plain.where((allocated != 0) & (allocated != _WHOLE))
    parts += _subclusters(image, geometry, rest)
    start = np.concatenate([part.guest.start for part in parts])
    order = np.argsort(start)
    stop = np.concatenate([part.guest.stop for part in parts])[order]
    where = np.concatenate([part.where for part in parts])[order]
    return Mapping(Ranges(start[order], stop), where)


def _subclusters(image: ImageFile, geometry: Geometry, entries: _Entries) -> list[Mapping]:
    """Return what is allocated in clusters that are not whole, few of them at once."""
    unit, parts = geometry.cluster // ondisk.SUBCLUSTERS, list[Mapping]()
    offset = entries.entry & ondisk.OFFSET
    for low in range(0, len(offset), _GATHER):
        high = low + _GATHER
        owner, index = _set_bits(entries.bitmap[low:high] & _WHOLE)
        numbers = entries.number[low:high][owner] * ondisk.SUBCLUSTERS + index
        places = offset[low:high][owner] + index * unit
        inside = numbers * unit < geometry.size
        parts.append(Mapping.of_blocks(numbers[inside], places[inside], unit, geometry.size))
        image.spend(len(parts[-1].where))
    return parts


def _set_bits(words: Column) -> tuple[Column, Column]:
    """Return, for every bit that is set, the row of its word and its number, ascending."""
    octets = words.astype("<u4").view(np.uint8).reshape(-1, 4)
    bits = np.unpackbits(octets, axis=1, bitorder="little")
    owner, index = np.nonzero(bits)
    return owner.astype(np.int64), index.astype(np.int64)


def _clipped(geometry: Geometry, mapping: Mapping) -> tuple[Mapping, bool]:
    """Cut off what the file ends before: it reads as zeros. Say whether there is no such."""
    length = np.minimum(mapping.guest.length, geometry.room - mapping.where)
    if (length == mapping.guest.length).all():
        return mapping, True
    start, kept = mapping.guest.start, length > 0
    guest = Ranges(start[kept], (start + length)[kept])
    return Mapping(guest, mapping.where[kept]), False
