"""Hosted sparse extents of VMDK ("KDMV"), of which streams are a kind."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from imgconv.checks.inspection import Inspection
from imgconv.checks.placement import Placement
from imgconv.checks.report import Usage
from imgconv.checks.vmdk_descriptor import embedded_descriptor
from imgconv.checks.vmdk_grains import (
    Tables,
    check_metadata,
    read_directory,
    tables_within,
    walk,
)
from imgconv.checks.vmdk_stream import check_stream
from imgconv.ondisk import vmdk as ondisk
from imgconv.ranges import Column, Mask, Ranges
from imgconv.sources.vmdk_descriptor import Descriptor
from imgconv.sources.vmdk_sparse import (
    GRAIN_SIZES,
    MAX_TABLE_ENTRIES,
    MAX_TABLES,
    VERSIONS,
    is_copy,
)
from imgconv.units import SECTOR, MiB, div_ceil, is_power_of_two

_KNOWN_FLAGS = (1 << 16) - 1 | ondisk.FLAG_COMPRESSED | ondisk.FLAG_MARKERS
_AT_RGD, _AT_GD = 48, 56
_ZEROS = 1


def check_sparse(
    inspection: Inspection, *, part: bool = False
) -> tuple[Usage, Descriptor | None]:
    """Check an extent, which may be a part of a disk; return what is in use, and what its
    descriptor says if it has one."""
    header = ondisk.SparseHeader.unpack(inspection.read(0, SECTOR))
    if not _can_go_on(inspection, header):
        return Usage(), None
    _check_fields(inspection, header)
    descriptor = embedded_descriptor(inspection, header, part=part)
    main = _Directory(header.directory_offset, _AT_GD)
    streamed = bool(header.flags & ondisk.FLAG_COMPRESSED)
    if header.directory_offset == ondisk.DIRECTORY_AT_END:
        footer = _read_footer(inspection, header)
        if footer is None:
            return Usage(), descriptor
        main = _Directory(footer.directory_offset, inspection.size - 2 * SECTOR + _AT_GD)
    tables, taken = _read_tables(inspection, header, main)
    if tables is None:
        return Usage(), descriptor
    inspection.tally.begin("check", len(tables.number) * tables.length)
    allocated = sum(len(found.number) for found in walk(inspection, tables, report=True))
    if streamed:
        end = check_stream(inspection, header, tables, taken)
    else:
        end = _check_places(inspection, tables, taken)
    usage = Usage(
        total_clusters=div_ceil(header.capacity, header.grain_size),
        allocated_clusters=allocated,
        compressed_clusters=allocated if streamed else 0,
        image_end_offset=end,
    )
    return usage, descriptor


def _can_go_on(inspection: Inspection, header: ondisk.SparseHeader) -> bool:
    """Check what all tables depend on."""
    require = inspection.require
    if not require(header.magic == ondisk.MAGIC, "header-magic", 0, "no signature"):
        return False
    unknown = header.flags & ~_KNOWN_FLAGS
    if header.version not in VERSIONS or unknown:
        text = f"version {header.version} or flags {unknown:#x} are not known"
        inspection.error("header-version", 4, text)
        return False
    grain, entries = header.grain_size * SECTOR, header.table_entries
    smallest, largest = GRAIN_SIZES
    possible = is_power_of_two(grain) and smallest <= grain <= largest
    good = require(possible, "grain-size", 20, f"grains of {grain} bytes")
    possible = is_power_of_two(entries) and entries <= MAX_TABLE_ENTRIES
    good &= require(possible, "table-entries", 44, f"grain tables of {entries} entries")
    good &= require(header.capacity > 0, "disk-size", 12, "the disk has no size")
    if good and div_ceil(header.capacity, header.grain_size * entries) > MAX_TABLES:
        inspection.error("too-large", 12, f"a disk of {header.capacity} sectors")
        return False
    return good


def _check_fields(inspection: Inspection, header: ondisk.SparseHeader) -> None:
    """Check what nothing else depends on."""
    require, advise, flags = inspection.require, inspection.advise, header.flags
    if flags & ondisk.FLAG_NEWLINE_TEST:
        same = header.newline_test == ondisk.NEWLINE_TEST
        require(same, "newline-test", 73, "line ends were translated")
    streamed = bool(flags & ondisk.FLAG_COMPRESSED)
    agree = streamed == bool(flags & ondisk.FLAG_MARKERS)
    require(agree, "header-flags", 8, "compressed grains and markers go together")
    codec = ondisk.DEFLATE if streamed else 0
    require(header.compression == codec, "compression", 77, f"method {header.compression}")
    clean = header.unclean_shutdown == 0
    advise(clean, "unclean-shutdown", 72, "it was not closed properly")
    advise(not any(header.padding), "header-reserved", 79, "padding is in use")
    inside = header.overhead * SECTOR <= inspection.size
    require(inside, "overhead", 64, f"grains begin at sector {header.overhead}")


@dataclass(frozen=True, slots=True)
class _Directory:
    """A grain directory: its sector, and where in the file that is said."""

    sector: int
    said_at: int

    @property
    def start(self) -> int:
        return self.sector * SECTOR


def _read_footer(
    inspection: Inspection, header: ondisk.SparseHeader
) -> ondisk.SparseHeader | None:
    """Return the footer, which but for the directory's place is the header once more."""
    require, start = inspection.require, inspection.size - 3 * SECTOR
    text = "there is no footer; is the file complete?"
    if not require(start >= SECTOR, "footer-missing", inspection.size, text):
        return None
    raw = inspection.read(start, 3 * SECTOR)
    marker = ondisk.MetadataMarker.unpack(raw)
    kind = marker.sectors, marker.zero, marker.marker_type
    found = kind == (1, 0, ondisk.MARKER_FOOTER)
    if not require(found, "footer-missing", start, text):
        return None
    ended = raw[2 * SECTOR :] == ondisk.END_OF_STREAM
    require(ended, "end-of-stream", start + 2 * SECTOR, "no end-of-stream marker")
    footer = ondisk.SparseHeader.unpack(raw[SECTOR:])
    same = replace(footer, directory_offset=header.directory_offset) == header
    judge = inspection.advise if is_copy(footer, header) else require
    judge(same, "footer-copy", start + SECTOR, "the footer is not what the header is")
    told = footer.directory_offset != ondisk.DIRECTORY_AT_END
    at = start + SECTOR + _AT_GD
    return footer if require(told, "footer-directory", at, "no directory's place") else None


def _read_tables(
    inspection: Inspection, header: ondisk.SparseHeader, main: _Directory
) -> tuple[Tables | None, Ranges]:
    """Return the tables, those of the second directory if the first is gone, and all that
    metadata take."""
    pieces, said_at = [Ranges.of([(0, SECTOR)])], [np.zeros(1, np.int64)]
    text = header.descriptor_offset * SECTOR
    if text:
        stop = min(text + header.descriptor_size * SECTOR, inspection.size)
        pieces.append(Ranges.single(text, stop))
        said_at.append(np.full(len(pieces[-1]), 28))
    found = list[Tables]()
    directories = [main]
    if header.flags & ondisk.FLAG_REDUNDANT_TABLE:
        directories.append(_Directory(header.redundant_directory_offset, _AT_RGD))
    for directory in directories:
        tables = _tables_of(inspection, header, directory)
        if tables is None:
            continue
        count = div_ceil(header.capacity, header.grain_size * header.table_entries)
        pieces.append(Ranges.single(directory.start, directory.start + 4 * count))
        said_at.append(np.array([directory.said_at]))
        pieces.append(tables.places)
        said_at.append(tables.said_at)
        found.append(tables)
    taken = check_metadata(inspection, Ranges.concat(pieces), np.concatenate(said_at))
    if len(found) == 2:
        _compare_tables(inspection, *found)
        found[0] = _completed(*found)
    return found[0] if found else None, taken


def _tables_of(
    inspection: Inspection, header: ondisk.SparseHeader, directory: _Directory
) -> Tables | None:
    count = div_ceil(header.capacity, header.grain_size * header.table_entries)
    read = read_directory(inspection, directory.start, directory.said_at, count, "<u4")
    if read is None:
        return None
    number, sector = read
    at, length = directory.start + 4 * number, 4 * header.table_entries
    inside = tables_within(inspection, sector * SECTOR, at, length)
    has_zeros = bool(header.flags & ondisk.FLAG_ZEROED_GRAINS)

    def decode(entries: Column) -> tuple[Column, Mask, Mask]:
        zero = (entries == _ZEROS) & has_zeros
        return entries * SECTOR, ~zero, zero & False

    return Tables(
        number=number[inside],
        where=sector[inside] * SECTOR,
        said_at=at[inside],
        entries=header.table_entries,
        kind="<u4",
        grain=header.grain_size * SECTOR,
        size=header.capacity * SECTOR,
        decode=decode,
        least=SECTOR if header.flags & ondisk.FLAG_COMPRESSED else 0,
    )


def _completed(first: Tables, second: Tables) -> Tables:
    """Return the first directory's tables, and of those it has lost the second one's."""
    lost = ~np.isin(second.number, first.number)
    if not lost.any():
        return first
    number = np.concatenate((first.number, second.number[lost]))
    order = np.argsort(number)
    where = np.concatenate((first.where, second.where[lost]))[order]
    said_at = np.concatenate((first.said_at, second.said_at[lost]))[order]
    return replace(first, number=number[order], where=where, said_at=said_at)


def _compare_tables(inspection: Inspection, first: Tables, second: Tables) -> None:
    """Check that both directories have the same tables, with the same entries."""
    only = np.setxor1d(first.number, second.number)
    at = first.said_at if len(first.number) > len(second.number) else second.said_at
    if len(only):
        text = f"grain table {int(only[0])} is in one of two directories only"
        where = int(at[0]) if len(at) else _AT_RGD
        inspection.corruption("redundant-directory", where, text)
    _, mine, theirs = np.intersect1d(first.number, second.number, return_indices=True)
    shared = first.where[mine] == second.where[theirs]
    inspection.warnings(
        "redundant-directory", shared, second.said_at[theirs], lambda _: "one table in both"
    )
    step = max(MiB // first.length, 1)
    for low in range(0, len(mine), step):
        inspection.stop.check()
        pair = first.where[mine[low : low + step]], second.where[theirs[low : low + step]]
        a, b = (
            np.frombuffer(
                inspection.image.read_tables(places, first.length), dtype=first.kind
            ).reshape(-1, first.entries)
            for places in pair
        )
        row, index = np.nonzero(a != b)
        places = pair[1][row] + 4 * index
        inspection.corruptions(
            "redundant-table",
            np.ones(len(row), dtype=np.bool_),
            places,
            lambda n, a=a, b=b, row=row, index=index: (  # type: ignore[misc]
                f"{b[row[n], index[n]]} in place of the first one's {a[row[n], index[n]]}"
            ),
        )


def _check_places(inspection: Inspection, tables: Tables, taken: Ranges) -> int:
    """Check that grains lie apart; return where what is in use ends."""

    def pieces() -> Iterator[tuple[Column, Column]]:
        for found in walk(inspection, tables):
            yield found.start, found.said_at

    placement = Placement(inspection, pieces, tables.grain, taken, "a grain")
    placement.check()
    placement.leak_until(inspection.size)
    return min(placement.end, inspection.size)
