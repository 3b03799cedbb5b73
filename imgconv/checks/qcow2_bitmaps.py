"""Dirty bitmaps kept in a QCOW2: their directory, their tables, and where their content is."""

import numpy as np

from imgconv.checks.findings import Told
from imgconv.checks.inspection import Inspection
from imgconv.checks.qcow2_header import Area, Shape
from imgconv.ondisk import qcow2_bitmaps as ondisk
from imgconv.ondisk.qcow2 import BITMAPS_VALID, OFFSET
from imgconv.ranges import Column
from imgconv.units import div_ceil, round_up

_DIRTY_TRACKING = 1
_MAX_ENTRY = 1 << 16  # bytes of a directory's entry that are believed
_MAX_ENTRIES = 1 << 22  # of all tables together
_MAX_DIRECTORY = 1024 * ondisk.MAX_BITMAPS  # bytes, as in qemu
_NONE = np.empty(0, dtype=np.int64)


def read_bitmaps(inspection: Inspection, shape: Shape) -> tuple[list[Area], Column, Column]:
    """Return the areas of directory and tables, the clusters that hold bitmaps, and where
    these are told."""
    at, length = shape.extensions.get(ondisk.BitmapsExtension.KIND, (0, 0))
    size = ondisk.BitmapsExtension.LAYOUT.size
    if not at or not inspection.require(length == size, "bitmaps", at, f"{length} bytes"):
        return [], _NONE, _NONE
    if not shape.tail.autoclear_features & BITMAPS_VALID:
        inspection.warning("bitmaps-stale", at, "they were not kept up to date, and are unused")
        return [], _NONE, _NONE
    extension = ondisk.BitmapsExtension.unpack(inspection.read(at, size))
    start, long = extension.directory_offset, extension.directory_size
    good = 0 < extension.count <= ondisk.MAX_BITMAPS and start % shape.cluster == 0
    good = (
        good
        and extension.reserved == 0
        and long <= _MAX_DIRECTORY
        and inspection.holds(start, long)
    )
    text = f"{extension.count} bitmaps, a directory of {long} bytes at {start}"
    if not inspection.require(good, "bitmaps", at, text):
        return [], _NONE, _NONE
    areas = [Area("the bitmap directory", start, long, at + 16)]
    clusters, places, total = [_NONE], [_NONE], 0
    for area in _walk(inspection, shape, extension):
        total += area.length // 8
        if total > _MAX_ENTRIES:
            inspection.error("too-large", area.said_at, f"{area.what} and what follows")
            break
        areas.append(area)
        found, said_at = _read_table(inspection, shape, area)
        clusters.append(found)
        places.append(said_at)
    return areas, np.concatenate(clusters), np.concatenate(places)


def _walk(
    inspection: Inspection, shape: Shape, extension: ondisk.BitmapsExtension
) -> list[Area]:
    """Return the tables of all bitmaps; the directory lies in the file."""
    head, areas = ondisk.BitmapEntry, list[Area]()
    at, end = (
        extension.directory_offset,
        (extension.directory_offset + extension.directory_size),
    )
    for number in range(extension.count):
        entry = head.unpack(inspection.read(at, head.LAYOUT.size))
        long = round_up(head.LAYOUT.size + entry.extra_size + entry.name_size, 8)
        text = f"bitmap {number} has an entry of {long} bytes"
        if not inspection.require(long <= min(end - at, _MAX_ENTRY), "bitmap-entry", at, text):
            return areas
        if _check_entry(inspection, shape, entry, at):
            what = f"the table of bitmap {number}"
            areas.append(Area(what, entry.table_offset, 8 * entry.table_size, at))
        at += long
    text = f"{end - at} bytes more than {extension.count} bitmaps"
    inspection.require(at == end, "bitmap-entry", at, text)
    return areas


def _check_entry(
    inspection: Inspection, shape: Shape, entry: ondisk.BitmapEntry, at: int
) -> bool:
    """Say whether an entry tells of a table that can be read."""
    in_use = bool(entry.flags & ondisk.IN_USE)
    text = "a bitmap was in use when its writer ended; it tells nothing"
    inspection.advise(not in_use, "bitmap-in-use", at + 12, text)
    bits = entry.granularity_bits
    good = ondisk.MIN_GRANULARITY_BITS <= bits <= ondisk.MAX_GRANULARITY_BITS
    good = good and entry.bitmap_type == _DIRTY_TRACKING
    good = good and not entry.flags & ~ondisk.FLAGS
    text = f"type {entry.bitmap_type}, flags {entry.flags:#x}, granularity 2^{bits}"
    known = inspection.require(good, "bitmap-entry", at, text)
    covers = entry.table_size * shape.cluster * 8 << bits if known else 0
    enough = in_use or not known or covers >= shape.front.size
    text = f"a table of {entry.table_size} entries for {shape.front.size} bytes"
    inspection.require(enough, "bitmap-size", at + 8, text)
    start, length = entry.table_offset, 8 * entry.table_size
    good = 0 < entry.table_size <= ondisk.MAX_TABLE and start % shape.cluster == 0
    good = good and start > 0 and inspection.holds(start, length)
    text = f"a table of {entry.table_size} entries at {start}"
    return inspection.require(good, "bitmap-table", at, text)


def _read_table(inspection: Inspection, shape: Shape, area: Area) -> tuple[Column, Column]:
    """Return the clusters of a bitmap, and where its table tells of them."""
    raw = np.frombuffer(inspection.read(area.start, area.length), dtype=">u8")
    entries = raw.astype(np.int64)
    used = np.flatnonzero(entries)
    values, at = entries[used], area.start + 8 * used
    place = values & OFFSET
    reserved = values.view(np.uint64) & np.uint64(ondisk.RESERVED)
    wrong = (reserved != 0) | ((place != 0) & (values & 1 != 0))
    wrong |= place % shape.cluster != 0
    last = div_ceil(shape.file_size, shape.cluster) * shape.cluster
    beyond = ~wrong & (place >= last)
    inspection.corruptions("bitmap-cluster", wrong | beyond, at, Told("a cluster at {}", place))
    good = ~wrong & ~beyond & (place != 0)
    return place[good], at[good]
