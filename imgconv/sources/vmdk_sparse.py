"""Hosted sparse extents of VMDK ("KDMV"): plain ones, and streams of compressed grains."""

from dataclasses import dataclass, replace

import numpy as np

from imgconv.codecs import unzlib
from imgconv.errors import ImageMalformed, ImageUnsupported
from imgconv.ondisk import vmdk as ondisk
from imgconv.ranges import Column, Mask, Ranges
from imgconv.sources.checked import ImageFile
from imgconv.sources.layered import Layer
from imgconv.sources.mapped import MappedSource, Mapping
from imgconv.sources.packed import Packed, PackedSource
from imgconv.sources.vmdk_grains import Grains, Tables, check_apart, check_grains, read_grains
from imgconv.units import SECTOR, KiB, MiB, div_ceil, is_power_of_two

GRAIN_SIZES = 4 * KiB, MiB  # what is on disk goes up to 64 KiB
MAX_TABLE_ENTRIES = 4096
MAX_TABLES = 1 << 22
VERSIONS = 1, 2, 3
_KNOWN_FLAGS = (1 << 16) - 1 | ondisk.FLAG_COMPRESSED | ondisk.FLAG_MARKERS
_ZEROS = 1  # the entry of a grain of zeros
_AT_FLAGS, _AT_CAPACITY, _AT_GRAIN, _AT_DIRECTORY = 8, 12, 20, 56
_UNCLEAN = "was not closed properly by its last user; it may lack what was written last"
_SECOND = "its grain directory is damaged ({}); the second one is used"


@dataclass(frozen=True, slots=True)
class _Directory:
    """A grain directory: its sector, and where in the file that is said."""

    sector: int
    said_at: int

    @property
    def start(self) -> int:
        """Its file offset."""
        return self.sector * SECTOR


def read_header(image: ImageFile) -> ondisk.SparseHeader:
    """Return the header of a sparse extent; raises ImageMalformed and ImageUnsupported."""
    raw = image.read(0, ondisk.SparseHeader.LAYOUT.size, "the header")
    header = ondisk.SparseHeader.unpack(raw)
    image.check(header.magic == ondisk.MAGIC, 0, "no signature of a sparse extent")
    if header.version not in VERSIONS:
        raise ImageUnsupported(
            f"{image.file.name}: a VMDK of version {header.version}; only 1 to 3 are known"
        )
    if unknown := header.flags & ~_KNOWN_FLAGS:
        raise ImageUnsupported(f"{image.file.name}: needs flags not known ({unknown:#x})")
    _check_kind(image, header)
    _check_sizes(image, header)
    return header


def _check_kind(image: ImageFile, header: ondisk.SparseHeader) -> None:
    flags = header.flags
    if flags & ondisk.FLAG_NEWLINE_TEST:
        whole = header.newline_test == ondisk.NEWLINE_TEST
        image.check(whole, 73, "line ends were translated; it was transferred as text")
    compressed = bool(flags & ondisk.FLAG_COMPRESSED)
    agree = compressed == bool(flags & ondisk.FLAG_MARKERS)
    image.check(agree, _AT_FLAGS, "compressed grains and markers go together")
    codec = ondisk.DEFLATE if compressed else 0
    image.check(header.compression == codec, 77, f"compression {header.compression}")


def _check_sizes(image: ImageFile, header: ondisk.SparseHeader) -> None:
    image.check(header.capacity > 0, _AT_CAPACITY, "the disk has no size")
    image.check_size(header.capacity * SECTOR)
    grain, entries = header.grain_size * SECTOR, header.table_entries
    smallest, largest = GRAIN_SIZES
    possible = is_power_of_two(grain) and smallest <= grain <= largest
    image.check(possible, _AT_GRAIN, f"grains of {grain} bytes")
    possible = is_power_of_two(entries) and entries <= MAX_TABLE_ENTRIES
    image.check(possible, 44, f"grain tables of {entries} entries")
    count = div_ceil(header.capacity, header.grain_size * entries)
    image.check(count <= MAX_TABLES, 44, f"{count} grain tables")


def open_sparse(image: ImageFile, header: ondisk.SparseHeader) -> Layer:
    """Return what the extent with that header says of its disk, or of its part of one."""
    compressed = bool(header.flags & ondisk.FLAG_COMPRESSED)
    main = _Directory(header.directory_offset, _AT_DIRECTORY)
    if header.directory_offset == ondisk.DIRECTORY_AT_END:
        image.check(compressed, _AT_DIRECTORY, "a directory at the end, but no stream")
        main = _final_directory(image, header)
    read = _read_stream if compressed else _read_plain
    notes = tuple[str, ...]()
    if header.unclean_shutdown == 1:
        notes = (f"{image.file.name}: {_UNCLEAN}",)
    budget = image.budget.pieces
    try:
        return read(image, header, main, notes)
    except ImageMalformed as error:
        if not header.flags & ondisk.FLAG_REDUNDANT_TABLE:
            raise
        notes += (f"{image.file.name}: {_SECOND.format(error.reason)}",)
        image.budget.pieces = budget
        return read(image, header, _Directory(header.redundant_directory_offset, 48), notes)


def _final_directory(image: ImageFile, header: ondisk.SparseHeader) -> _Directory:
    """Return what the footer says, which but for that is the header once more."""
    start = image.file.size - 3 * SECTOR
    image.check(start >= SECTOR, image.file.size, "there is no footer; is the file complete?")
    raw = image.read(start, 3 * SECTOR, "the footer")
    marker = ondisk.MetadataMarker.unpack(raw)
    kind = marker.sectors, marker.zero, marker.marker_type
    found = kind == (1, 0, ondisk.MARKER_FOOTER) and raw[2 * SECTOR :] == ondisk.END_OF_STREAM
    image.check(found, start, "there is no footer; is the file complete?")
    footer = ondisk.SparseHeader.unpack(raw[SECTOR:])
    at = start + SECTOR
    image.check(
        footer.directory_offset != ondisk.DIRECTORY_AT_END,
        at + _AT_DIRECTORY,
        "the footer does not say where the directory is",
    )
    image.check(is_copy(footer, header), at, "the footer is not what the header is")
    return _Directory(footer.directory_offset, at + _AT_DIRECTORY)


def is_copy(footer: ondisk.SparseHeader, header: ondisk.SparseHeader) -> bool:
    """Say whether both are of one disk; what a writer may learn on the way need not be so."""
    learned = replace(
        footer,
        redundant_directory_offset=header.redundant_directory_offset,
        directory_offset=header.directory_offset,
        overhead=header.overhead,
        unclean_shutdown=header.unclean_shutdown,
        padding=header.padding,
    )
    return learned == header


def _read_plain(
    image: ImageFile,
    header: ondisk.SparseHeader,
    directory: _Directory,
    notes: tuple[str, ...],
) -> Layer:
    size = header.capacity * SECTOR
    tables = _read_directory(image, header, directory)
    grains = read_grains(image, tables, size, _decoder(header))
    check_grains(
        image, grains.mapping, _metadata(image, header, directory, tables), directory.start
    )
    return Layer(MappedSource(image.file, size, grains.mapping, notes), grains.own)


def _read_stream(
    image: ImageFile,
    header: ondisk.SparseHeader,
    directory: _Directory,
    notes: tuple[str, ...],
) -> Layer:
    size, grain = header.capacity * SECTOR, header.grain_size * SECTOR
    tables = _read_directory(image, header, directory)
    grains = read_grains(image, tables, size, _decoder(header), join=False)
    packed = _streams(
        image, grains, _metadata(image, header, directory, tables), directory.start
    )
    nothing = Mapping(Ranges.of([]), np.empty(0, np.int64), grains.zeros)
    source = PackedSource(image, size, nothing, packed, _Unpacker(grain), notes)
    return Layer(source, grains.own.merged())


def _decoder(header: ondisk.SparseHeader) -> "_Decoder":
    return _Decoder(bool(header.flags & ondisk.FLAG_ZEROED_GRAINS))


@dataclass(frozen=True, slots=True)
class _Decoder:
    """Entries are sectors, and 1 may stand for zeros."""

    has_zeros: bool

    def __call__(self, entries: Column) -> tuple[Column, Mask, Mask]:
        zero = (entries == _ZEROS) & self.has_zeros
        return entries * SECTOR, ~zero, zero


def _read_directory(
    image: ImageFile, header: ondisk.SparseHeader, directory: _Directory
) -> Tables:
    """Return the grain tables there are."""
    count = div_ceil(header.capacity, header.grain_size * header.table_entries)
    image.check(directory.sector > 0, directory.said_at, "there is no grain directory")
    image.check_inside(directory.start, 4 * count, directory.said_at, "the grain directory")
    raw = image.read(directory.start, 4 * count, "the grain directory")
    sectors = np.frombuffer(raw, dtype="<u4").astype(np.int64)
    used = np.flatnonzero(sectors)
    tables = Tables(
        number=used,
        where=sectors[used] * SECTOR,
        entries=header.table_entries,
        kind="<u4",
        grain=header.grain_size * SECTOR,
    )
    beyond = tables.where + tables.length > image.file.size
    for row in used[beyond][:1].tolist():
        raise image.error(directory.start + 4 * row, "a grain table beyond the end of the file")
    image.check_apart(tables.places, directory.start)  # before they are read many times
    return tables


def _metadata(
    image: ImageFile, header: ondisk.SparseHeader, directory: _Directory, tables: Tables
) -> Ranges:
    """Return what of the file is not for grains."""
    count = div_ceil(header.capacity, header.grain_size * header.table_entries)
    text = header.descriptor_offset * SECTOR
    fixed = [
        (0, SECTOR),
        (text, text + header.descriptor_size * SECTOR),
        (directory.start, directory.start + 4 * count),
    ]
    # Nobody checked the descriptor's place: it may end beyond all that exists.
    inside = [(start, min(stop, image.file.size)) for start, stop in fixed]
    start, stop = np.array([pair for pair in inside if pair[0] < pair[1]], dtype=np.int64).T
    places = tables.places
    return Ranges(np.concatenate((start, places.start)), np.concatenate((stop, places.stop)))


def _streams(image: ImageFile, grains: Grains, metadata: Ranges, offset: int) -> Packed:
    """Return where streams are; each may go on to whatever comes next in the file."""
    where = grains.mapping.where
    head = ondisk.GrainMarker.LAYOUT.size
    if len(where):
        image.check_inside(int(where.max()), head, offset, "a grain")
    check_apart(image, Ranges(where, where + head), metadata, offset)
    edges = np.sort(np.concatenate((where, metadata.start, [image.file.size])))
    following = edges[np.searchsorted(edges, where, side="right")]
    most = head + 2 * grains.mapping.guest.length.max(initial=SECTOR)
    return Packed(grains.mapping.guest, where, np.minimum(following - where, most))


@dataclass(frozen=True, slots=True)
class _Unpacker:
    """Decodes a grain behind its marker, which must be the one for its place."""

    grain: int

    def __call__(self, stream: memoryview, guest: int, wanted: int) -> memoryview:
        marker = ondisk.GrainMarker.unpack(stream)
        if marker.sector * SECTOR != guest:
            raise ValueError(f"its marker is of sector {marker.sector}, not {guest // SECTOR}")
        head = marker.LAYOUT.size
        if not 0 < marker.length <= len(stream) - head:
            raise ValueError(f"its marker tells of {marker.length} bytes")
        return unzlib(stream[head : head + marker.length], wanted, self.grain)[:wanted]
