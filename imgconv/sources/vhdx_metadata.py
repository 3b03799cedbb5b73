"""Headers, regions and metadata of a VHDX: what kind of disk it is, and where its parts are."""

from collections.abc import Iterator
from dataclasses import dataclass

from imgconv.errors import ImageUnsupported
from imgconv.ondisk import vhdx as ondisk
from imgconv.ranges import Ranges
from imgconv.sources.checked import ImageFile
from imgconv.units import is_power_of_two

KNOWN_REGIONS = {ondisk.TABLE_REGION: "block table", ondisk.METADATA_REGION: "metadata"}
KNOWN_ITEMS = {
    ondisk.FILE_PARAMETERS: "file parameters",
    ondisk.DISK_SIZE: "disk size",
    ondisk.DISK_ID: "disk id",
    ondisk.LOGICAL_SECTOR: "logical sector size",
    ondisk.PHYSICAL_SECTOR: "physical sector size",
    ondisk.PARENT_LOCATOR: "parent locator",
}


@dataclass(frozen=True, slots=True)
class Regions:
    """Where block table and metadata are, and all ranges of the file in which no block may
    lie: these, other regions, the log, and the first MiB."""

    table: ondisk.Region
    metadata: ondisk.Region
    taken: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """What the metadata say; `locator` is where the image tells of its parent, if it has
    one, and what it tells. The blocks of a `fixed` disk all stay allocated."""

    blocks: ondisk.Blocks
    fixed: bool
    locator: tuple[int, bytes] | None


def read_header(image: ImageFile) -> ondisk.Header:
    """Return the header that counts, which the file has twice.

    Raises ImageMalformed, and ImageUnsupported for a version that is not known.
    """
    front = image.read(0, len(ondisk.SIGNATURE), "the signature")
    image.check(front == ondisk.SIGNATURE, 0, "no signature of a VHDX")
    found = list[ondisk.Header]()
    for at in ondisk.HEADERS_AT:
        header = ondisk.Header.unpack(image.read(at, ondisk.Header.LAYOUT.size, "a header"))
        if header.signature == ondisk.HEADER and header == header.sealed():
            found.append(header)
    image.check(bool(found), ondisk.HEADERS_AT[0], "neither header's checksum is right")
    header = max(found, key=lambda header: header.sequence)
    if header.version != ondisk.VERSION:
        raise ImageUnsupported(
            f"{image.file.name}: a VHDX of version {header.version}; only 1 is known"
        )
    if header.log_length:
        _check_aligned(image, header.log_offset, header.log_length, ondisk.HEADERS_AT[0])
    return header


def read_regions(image: ImageFile, header: ondisk.Header) -> Regions:
    """Return where the parts of the file are.

    Raises ImageMalformed, and ImageUnsupported for a part that one would have to know.
    """
    at, regions = _region_table(image)
    found = dict[bytes, ondisk.Region]()
    for region in regions:
        _check_aligned(image, region.offset, region.length, at)
        image.check(region.kind not in found, at, "a region is listed twice")
        if region.kind not in KNOWN_REGIONS and region.flags & ondisk.REQUIRED_REGION:
            raise ImageUnsupported(
                f"{image.file.name}: needs a region that is not known, "
                f"{ondisk.guid_text(region.kind)}"
            )
        found[region.kind] = region
    for kind, name in KNOWN_REGIONS.items():
        image.check(kind in found, at, f"there is no region of the {name}")
    taken = [(region.offset, region.offset + region.length) for region in regions]
    if header.log_length:
        taken.append((header.log_offset, header.log_offset + header.log_length))
    image.check_apart(Ranges.of(taken), at)
    return Regions(
        found[ondisk.TABLE_REGION],
        found[ondisk.METADATA_REGION],
        ((0, ondisk.ALIGNMENT), *taken),
    )


def read_kind(image: ImageFile, metadata: ondisk.Region) -> Kind:
    """Return what kind of disk it is.

    Raises ImageMalformed, and ImageUnsupported for what one would have to know of the disk,
    or if it is too large.
    """
    items = _Items(image, metadata.offset, dict(_items(image, metadata)))
    at, parameters = items.number(ondisk.FILE_PARAMETERS, 8)
    block_size, flags = parameters & 0xFFFFFFFF, parameters >> 32
    smallest, largest = ondisk.BLOCK_SIZES
    possible = is_power_of_two(block_size) and smallest <= block_size <= largest
    image.check(possible, at, f"blocks of {block_size} bytes")
    sector_at, sector = items.number(ondisk.LOGICAL_SECTOR, 4)
    image.check(sector in ondisk.SECTOR_SIZES, sector_at, f"sectors of {sector} bytes")
    size_at, size = items.number(ondisk.DISK_SIZE, 8)
    image.check(size > 0, size_at, "the disk has no size")
    image.check(size % sector == 0, size_at, f"{size} bytes are not a number of sectors")
    image.check_size(size)
    blocks = ondisk.Blocks(disk_size=size, block_size=block_size, sector_size=sector)
    fixed, has_parent = bool(flags & ondisk.LEAVE_ALLOCATED), flags & ondisk.HAS_PARENT
    return Kind(blocks, fixed, items.content(ondisk.PARENT_LOCATOR) if has_parent else None)


def _check_aligned(image: ImageFile, offset: int, length: int, at: int) -> None:
    """Refuse what does not begin and end at a MiB behind the first."""
    unit = ondisk.ALIGNMENT
    right = offset % unit == 0 and length % unit == 0 and offset >= unit and length > 0
    image.check(right, at, f"a region of {length} bytes at {offset}: not of whole MiB")
    image.check(offset + length < 1 << 63, at, f"a region at {offset}, where no file reaches")


def _region_table(image: ImageFile) -> tuple[int, list[ondisk.Region]]:
    """Return where the table is, of which there are two, and its entries."""
    for at in ondisk.REGIONS_AT:
        raw = image.read(at, ondisk.TABLE_SIZE, "a region table")
        table = ondisk.RegionTable.unpack(raw)
        if table.signature != ondisk.REGIONS or table.checksum != ondisk.checksum(raw):
            continue
        image.check(table.count <= ondisk.MAX_ENTRIES, at, f"{table.count} regions")
        first, step = ondisk.RegionTable.LAYOUT.size, ondisk.Region.LAYOUT.size
        ends = range(first, first + table.count * step, step)
        return at, [ondisk.Region.unpack(raw[low : low + step]) for low in ends]
    raise image.error(ondisk.REGIONS_AT[0], "neither region table's checksum is right")


@dataclass(frozen=True, slots=True)
class _Items:
    """Metadata items by kind: where each is in the file, and its length."""

    image: ImageFile
    table: int
    places: dict[bytes, tuple[int, int]]

    def content(self, kind: bytes) -> tuple[int, bytes]:
        """Return where an item is, and its bytes."""
        name = KNOWN_ITEMS[kind]
        self.image.check(kind in self.places, self.table, f"there is no {name}")
        at, length = self.places[kind]
        return at, self.image.read(at, length, f"the {name}")

    def number(self, kind: bytes, length: int) -> tuple[int, int]:
        """Return where an item of `length` bytes is, and its value as one number."""
        at, raw = self.content(kind)
        right = len(raw) == length
        self.image.check(right, at, f"the {KNOWN_ITEMS[kind]} has {len(raw)} bytes")
        return at, int.from_bytes(raw, "little")


def _items(image: ImageFile, region: ondisk.Region) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yield which known items there are, where in the file, and their lengths."""
    at, step = region.offset, ondisk.Item.LAYOUT.size
    raw = image.read(at, ondisk.TABLE_SIZE, "the metadata")
    table = ondisk.MetadataTable.unpack(raw)
    image.check(table.signature == ondisk.METADATA, at, "no table of metadata")
    image.check(table.count <= ondisk.MAX_ENTRIES, at, f"{table.count} items of metadata")
    seen = dict[bytes, tuple[int, int]]()
    for low in range(step, step + table.count * step, step):
        item = ondisk.Item.unpack(raw[low : low + step])
        if item.kind not in KNOWN_ITEMS or item.flags & ondisk.USER_ITEM:
            _refuse_required(image, item)
            continue
        image.check(item.kind not in seen, at + low, "an item is listed twice")
        seen[item.kind] = item.offset, item.offset + item.length
        inside = ondisk.TABLE_SIZE <= item.offset <= region.length - item.length
        image.check(
            inside and item.length <= ondisk.MAX_ITEM,
            at + low,
            f"an item of {item.length} bytes at {item.offset} of the metadata",
        )
        yield item.kind, (at + item.offset, item.length)
    image.check_apart(Ranges.of(list(seen.values())), at)


def _refuse_required(image: ImageFile, item: ondisk.Item) -> None:
    if item.flags & ondisk.REQUIRED_ITEM:
        raise ImageUnsupported(
            f"{image.file.name}: needs metadata that are not known, "
            f"{ondisk.guid_text(item.kind)}"
        )
