"""What a VHDX says before its blocks: headers, log, regions, metadata.

Each thing is checked by itself, so that one that is wrong hides none of the others; None is
returned for what is not to be had.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from imgconv.checks.inspection import Inspection
from imgconv.ondisk import vhdx as ondisk
from imgconv.sources.checked import ImageFile
from imgconv.sources.vhdx_locator import read_locator
from imgconv.sources.vhdx_log import replayed
from imgconv.sources.vhdx_metadata import KNOWN_ITEMS, KNOWN_REGIONS
from imgconv.units import is_power_of_two

_OPTIONAL = (ondisk.DISK_ID, ondisk.PHYSICAL_SECTOR, ondisk.PARENT_LOCATOR)


@dataclass(frozen=True, slots=True)
class Areas:
    """The regions of the two kinds that are known, as far as they are there, and all places
    that are not for blocks."""

    table: ondisk.Region | None
    metadata: ondisk.Region | None
    taken: tuple[tuple[int, int], ...]


def check_headers(inspection: Inspection) -> ondisk.Header | None:
    """Check the signature and both headers; return the header that counts."""
    signed = inspection.read(0, len(ondisk.SIGNATURE)) == ondisk.SIGNATURE
    inspection.require(signed, "header-magic", 0, "no signature of a VHDX")
    found = list[ondisk.Header]()
    for at in ondisk.HEADERS_AT:
        header = ondisk.Header.unpack(inspection.read(at, ondisk.Header.LAYOUT.size))
        right = header.signature == ondisk.HEADER and header == header.sealed()
        if inspection.advise(right, "header-copy", at, "a header whose checksum is wrong"):
            found.append(header)
    text = "neither header's checksum is right"
    inspection.require(bool(found), "structure", ondisk.HEADERS_AT[0], text)
    return max(found, key=lambda header: header.sequence, default=None)


def check_log(inspection: Inspection, header: ondisk.Header | None) -> ImageFile:
    """Check the log, if there is a header that tells of one; return the image afterwards."""
    image = inspection.image
    if header is None or not header.log_length:
        return image
    at, length = header.log_offset, header.log_length
    text = f"a log of {length} bytes at {at}: not of whole MiB"
    if not inspection.require(_is_aligned(at, length), "log", ondisk.HEADERS_AT[0], text):
        return image
    with inspection.noting("log", at):
        present = replayed(image, header)
        inspection.advise(present is image, "dirty", at, "a log to be replayed")
        return present
    return image


def _is_aligned(offset: int, length: int) -> bool:
    unit = ondisk.ALIGNMENT
    whole = offset % unit == 0 and length % unit == 0 and offset >= unit and length > 0
    return whole and offset + length < 1 << 63


def check_regions(inspection: Inspection, header: ondisk.Header | None) -> Areas:
    """Check both region tables, and the regions that the first good one tells of."""
    taken, found = [(0, ondisk.ALIGNMENT)], dict[bytes, ondisk.Region]()
    if header is not None and _is_aligned(header.log_offset, header.log_length):
        taken.append((header.log_offset, header.log_offset + header.log_length))
    for at, region in _regions(inspection):
        start, stop = region.offset, region.offset + region.length
        text = f"a region of {region.length} bytes at {start}: not of whole MiB"
        if not inspection.require(_is_aligned(start, region.length), "region", at, text):
            continue
        inspection.advise(
            stop <= inspection.size, "area-beyond-end", at, f"a region ends at {stop}"
        )
        if region.kind not in KNOWN_REGIONS and region.flags & ondisk.REQUIRED_REGION:
            text = f"a region that is not known, {ondisk.guid_text(region.kind)}"
            inspection.error("unsupported", at, text)
        once = region.kind not in found
        if inspection.require(once, "region", at, "a region is listed twice"):
            found[region.kind] = region
            taken.append((start, stop))
    for kind, name in KNOWN_REGIONS.items():
        text = f"there is no region of the {name}"
        inspection.require(kind in found, "region", ondisk.REGIONS_AT[0], text)
    check_apart(inspection, taken, ondisk.REGIONS_AT[0])
    table, metadata = found.get(ondisk.TABLE_REGION), found.get(ondisk.METADATA_REGION)
    return Areas(table, metadata, tuple(taken))


def _regions(inspection: Inspection) -> Iterator[tuple[int, ondisk.Region]]:
    """Yield where regions are told of, and what, of the first table that is right; of one
    whose checksum is wrong if there is no other."""
    tables = [inspection.read(at, ondisk.TABLE_SIZE) for at in ondisk.REGIONS_AT]
    good, likely = list[int](), list[int]()
    for number, (at, raw) in enumerate(zip(ondisk.REGIONS_AT, tables, strict=True)):
        table = ondisk.RegionTable.unpack(raw)
        right = table.signature == ondisk.REGIONS and table.checksum == ondisk.checksum(raw)
        text = "a region table whose checksum is wrong"
        if inspection.advise(right, "region-copy", at, text):
            good.append(number)
        if table.signature == ondisk.REGIONS and table.count <= ondisk.MAX_ENTRIES:
            likely.append(number)
    same = tables[0] == tables[1]
    inspection.advise(same, "region-copy", ondisk.REGIONS_AT[1], "the region tables differ")
    text = "neither region table's checksum is right"
    inspection.require(bool(good), "structure", ondisk.REGIONS_AT[0], text)
    for number in (good or likely)[:1]:
        raw, at = tables[number], ondisk.REGIONS_AT[number]
        count = ondisk.RegionTable.unpack(raw).count
        if not inspection.require(
            count <= ondisk.MAX_ENTRIES, "region", at, f"{count} regions"
        ):
            return
        first, step = ondisk.RegionTable.LAYOUT.size, ondisk.Region.LAYOUT.size
        for low in range(first, first + count * step, step):
            yield at + low, ondisk.Region.unpack(raw[low : low + step])


def check_apart(inspection: Inspection, places: list[tuple[int, int]], at: int) -> None:
    """Check that ranges of the file, told of at `at`, do not lie on one another."""
    reach = 0
    for start, stop in sorted(places):
        inspection.require(
            start >= reach, "metadata-overlap", at, f"what is at {start} has two uses"
        )
        reach = max(reach, stop)


@dataclass(frozen=True, slots=True)
class Disk:
    """What the metadata say of the disk; `layered` is one over a parent."""

    blocks: ondisk.Blocks
    layered: bool


def check_metadata(inspection: Inspection, region: ondisk.Region) -> Disk | None:
    """Check all items of metadata; return what they say if they say enough."""
    items = _Items(inspection, region, dict(_items(inspection, region)))
    items.check()
    parameters = items.number(ondisk.FILE_PARAMETERS, 8)
    sector, size = items.number(ondisk.LOGICAL_SECTOR, 4), items.number(ondisk.DISK_SIZE, 8)
    require, usable = inspection.require, True
    block, flags = 0, 0
    if parameters is not None:
        block, flags = parameters & 0xFFFFFFFF, parameters >> 32
        smallest, largest = ondisk.BLOCK_SIZES
        possible = is_power_of_two(block) and smallest <= block <= largest
        at = items.at(ondisk.FILE_PARAMETERS)
        usable &= require(possible, "block-size", at, f"blocks of {block} bytes")
    if sector is not None:
        at, possible = items.at(ondisk.LOGICAL_SECTOR), sector in ondisk.SECTOR_SIZES
        usable &= require(possible, "sector-size", at, f"sectors of {sector} bytes")
    if size is not None:
        at, possible = items.at(ondisk.DISK_SIZE), 0 < size <= ondisk.MAX_SIZE
        usable &= require(possible, "disk-size", at, f"a disk of {size} bytes")
        whole = size % (sector or 1) == 0
        require(whole, "disk-size", at, f"{size} bytes are not a number of sectors")
    if flags & ondisk.HAS_PARENT:
        items.check_parent()
    if not usable or parameters is None or sector is None or size is None:
        return None
    blocks = ondisk.Blocks(disk_size=size, block_size=block, sector_size=sector)
    return Disk(blocks, bool(flags & ondisk.HAS_PARENT))


@dataclass(frozen=True, slots=True)
class _Items:
    """Known items by kind: where each is in the file, and its length."""

    inspection: Inspection
    region: ondisk.Region
    places: dict[bytes, tuple[int, int]]

    def at(self, kind: bytes) -> int:
        """Return where an item is, or where it would have to be told of."""
        return self.places.get(kind, (self.region.offset, 0))[0]

    def check(self) -> None:
        """Check that all are there that must be, and that they lie apart."""
        for kind, name in KNOWN_ITEMS.items():
            there = kind in self.places or kind in _OPTIONAL
            text = f"there is no {name}"
            self.inspection.require(there, "metadata", self.region.offset, text)
        places = [(at, at + length) for at, length in self.places.values()]
        check_apart(self.inspection, places, self.region.offset)

    def number(self, kind: bytes, length: int) -> int | None:
        """Return the value of an item of `length` bytes, None if it is not such a one."""
        if kind not in self.places:
            return None
        at, there = self.places[kind]
        text = f"the {KNOWN_ITEMS[kind]} has {there} bytes"
        if not self.inspection.require(there == length, "metadata", at, text):
            return None
        return int.from_bytes(self.inspection.read(at, length), "little")

    def check_parent(self) -> None:
        """Check that it is told which image is the parent."""
        at, length = self.places.get(ondisk.PARENT_LOCATOR, (self.region.offset, 0))
        with self.inspection.noting("parent", at):
            read_locator(self.inspection.image, at, self.inspection.read(at, length))


def _items(
    inspection: Inspection, region: ondisk.Region
) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yield which known items there are, where in the file, and their lengths."""
    start, step = region.offset, ondisk.Item.LAYOUT.size
    raw = inspection.read(start, ondisk.TABLE_SIZE)
    table = ondisk.MetadataTable.unpack(raw)
    require, seen = inspection.require, set[bytes]()
    if not require(table.signature == ondisk.METADATA, "metadata", start, "no table of them"):
        return
    if not require(
        table.count <= ondisk.MAX_ENTRIES, "metadata", start, f"{table.count} items"
    ):
        return
    for low in range(step, step + table.count * step, step):
        item = ondisk.Item.unpack(raw[low : low + step])
        if item.kind not in KNOWN_ITEMS or item.flags & ondisk.USER_ITEM:
            if item.flags & ondisk.REQUIRED_ITEM:
                text = f"metadata that are not known, {ondisk.guid_text(item.kind)}"
                inspection.error("unsupported", start + low, text)
            continue
        inside = ondisk.TABLE_SIZE <= item.offset <= region.length - item.length
        inside &= item.length <= ondisk.MAX_ITEM
        text = f"an item of {item.length} bytes at {item.offset} of the metadata"
        once = require(
            item.kind not in seen, "metadata", start + low, "an item is listed twice"
        )
        if require(inside, "metadata", start + low, text) and once:
            seen.add(item.kind)
            yield item.kind, (start + item.offset, item.length)
