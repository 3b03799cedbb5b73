"""What is wrong with each hostile VHDX, and what must be said of it."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from support import vhdx_image as vhdx
from support.vhdx_image import DATA_AT, DATA_ID, LOG_ID, METADATA_AT, TABLE_AT, entry, log_entry

from hostile.case import UNREADABLE, UNSUPPORTED, Case, case
from hostile.made import Made, of
from imgconv.ondisk import vhdx as ondisk
from imgconv.units import KiB, MiB, TiB

PAGE = 4 * KiB
BLOCKS = [entry(4), 0, entry(5)]
Items = dict[bytes, bytes]


def make_vhdx(
    items: Items | None = None,
    entries: Sequence[int] = BLOCKS,
    *,
    data: bytes = b"d" * (2 * MiB),
    pieces: dict[int, bytes] | None = None,
    size: int = 0,
    **more: Any,
) -> Made:
    """A disk of three blocks of 1 MiB, of which the second is not there."""
    metadata = vhdx.items(3 * MiB) if items is None else items
    made = of(vhdx.image(metadata, entries, data, **more)).over(pieces or {})
    return made.grown(max(made.size, size))


def header(**fields: object) -> Callable[[], Made]:
    return lambda: make_vhdx(**fields)


def kind(size: int = 3 * MiB, **fields: Any) -> Callable[[], Made]:
    return lambda: make_vhdx(vhdx.items(size, **fields))


def item(**fields: int) -> Callable[[], Made]:
    """With another entry in the table of metadata: that of the disk's size."""
    sound = ondisk.Item(ondisk.DISK_SIZE, 64 * KiB + 8, 8, 4, 0)
    raw = replace(sound, **fields).pack()
    return lambda: make_vhdx(pieces={METADATA_AT + 64: raw})


def table(*entries: int) -> Callable[[], Made]:
    return lambda: make_vhdx(entries=entries)


def regions(*more: ondisk.Region, **fields: int) -> Callable[[], Made]:
    return lambda: make_vhdx(table=vhdx.regions(*more, **fields))


def log(*entries: bytes, **fields: object) -> Callable[[], Made]:
    return lambda: make_vhdx(log=b"".join(entries), **fields)


def long_log() -> Made:
    """One entry of 70,000 changes, in a log of its own behind the data."""
    one = log_entry(1, [(DATA_AT, 0)] * 70_000)
    place = {"log_id": LOG_ID, "log_offset": 6 * MiB, "log_length": 4 * MiB}
    return make_vhdx(data=b"d" * (2 * MiB) + one.ljust(4 * MiB, b"\0"), **place)


def child(
    values: dict[str, str] | None = None,
    entries: Sequence[int] = (entry(4), 0, entry(5)),
    raw: bytes | None = None,
    **more: Any,
) -> Callable[[], Made]:
    """An image over a parent, of which `raw` is told in place of `values`."""
    known = {"parent_linkage": f"{{{ondisk.guid_text(DATA_ID)}}}", **(values or {})}
    locator = vhdx.locator(known) if raw is None else raw
    metadata = vhdx.items(3 * MiB, flags=ondisk.HAS_PARENT, locator=locator)
    rows = [*entries, *[0] * (4097 - len(entries))]
    return lambda: make_vhdx(metadata, rows, **more)


def parent(name: str) -> Callable[[], Made]:
    return child({"relative_path": name})


def partly(bitmap: int) -> Callable[[], Made]:
    """A block that is there in part, as a bitmap says."""
    return child(entries=[entry(4, 7), 0, 0, *[0] * 4093, bitmap], data=b"d" * (2 * MiB))


def many_holes() -> Made:
    """Every other sector of 8 GiB, by two bitmaps."""
    block, ratio = 256 * MiB, 16
    metadata = vhdx.items(
        2 * ratio * block,
        block=block,
        flags=ondisk.HAS_PARENT,
        locator=vhdx.locator({"parent_linkage": f"{{{ondisk.guid_text(DATA_ID)}}}"}),
    )
    rows = list[int]()
    for chunk in range(2):
        rows += [entry(6 + 256 * (chunk * ratio + n), 7) for n in range(ratio)]
        rows.append(entry(4 + chunk))
    bitmaps = b"\x55" * (2 * MiB)
    return make_vhdx(metadata, rows, data=bitmaps, size=6 * MiB + 32 * block)


BELOW = "its parent, .*, which is not allowed"
HERE: dict[str, Any] = {"allowed": "same-folder"}
FRONT = make_vhdx().content()[:MiB]


def twice(at: int) -> Callable[[], Made]:
    """With a bit changed at a place that exists twice."""
    step = 64 * KiB
    changed = {n: bytes([FRONT[n] ^ 1]) for n in (at, at + step)}
    return lambda: make_vhdx(pieces=changed)


def many_regions() -> Made:
    """More than a table has, and a checksum that is right."""
    tables = {}
    for at in ondisk.REGIONS_AT:
        raw = FRONT[at : at + 8] + struct.pack("<I", 2048) + FRONT[at + 12 : at + 64 * KiB]
        tables[at] = ondisk.sealed(raw)
    return make_vhdx(pieces=tables)


VHDX: dict[str, Case] = {
    "CVE-2014-0148 block 0": case(kind(block=0), "blocks of 0"),
    "CVE-2014-0148 sectors of 0": case(kind(sector=0), "sectors of 0"),
    "parent by path": case(parent("/etc/passwd"), BELOW, UNSUPPORTED),
    "block odd": case(kind(block=3 * MiB), "blocks of"),
    "block 512 MiB": case(kind(block=512 * MiB), "blocks of"),
    "sectors odd": case(kind(sector=1000), "sectors of 1000"),
    "size 0": case(kind(0), "no size"),
    "size odd": case(kind(MiB + 1), "not a number of sectors"),
    "size 2^64": case(kind((1 << 64) - 512), "at most", UNSUPPORTED),
    "size beyond the table": case(kind(64 * TiB), "the block table has"),
    "no signature": case(
        lambda: make_vhdx(pieces={0: b"vhdxfilf"}), "no signature", format="vhdx"
    ),
    "version": case(header(version=2), "version 2", UNSUPPORTED),
    "both headers damaged": case(twice(64 * KiB + 90), "neither header"),
    "both region tables damaged": case(twice(192 * KiB + 90), "neither region table"),
    "2048 regions": case(many_regions, "2048 regions"),
    "region twice": case(
        lambda: make_vhdx(table=[*vhdx.regions(), vhdx.regions()[0]]), "listed twice"
    ),
    "region unknown": case(
        regions(ondisk.Region(b"?" * 16, 9 * MiB, MiB, 1)), "not known", UNSUPPORTED
    ),
    "region nowhere": case(lambda: make_vhdx(table=vhdx.regions()[:1]), "no region"),
    "region in the headers": case(regions(offset=0), "not of whole MiB"),
    "region unaligned": case(regions(offset=TABLE_AT + 512), "not of whole MiB"),
    "region of nothing": case(regions(length=0), "not of whole MiB"),
    "region near 2^64": case(regions(offset=(1 << 64) - MiB), "where no file reaches"),
    "region beyond": case(regions(offset=1 << 62), "but the file has"),
    "region without end": case(regions(length=0xFFF00000), "has two uses"),
    "regions overlap": case(regions(offset=METADATA_AT), "two uses"),
    "region is the log": case(regions(offset=MiB), "two uses"),
    "metadata beyond": case(
        lambda: make_vhdx(
            table=[
                vhdx.regions()[0],
                ondisk.Region(ondisk.METADATA_REGION, 1 << 40, MiB, 1),
            ]
        ),
        "the metadata would be",
    ),
    "no metadata": case(
        lambda: make_vhdx(pieces={METADATA_AT: b"metadatb"}), "no table of metadata"
    ),
    "65535 items": case(
        lambda: make_vhdx(pieces={METADATA_AT + 10: b"\xff\xff"}), "65535 items"
    ),
    "no items": case(lambda: make_vhdx({}), "there is no"),
    "item unknown": case(
        lambda: make_vhdx(vhdx.items(3 * MiB) | {b"?" * 16: b""}), "not known", UNSUPPORTED
    ),
    "item twice": case(item(kind=ondisk.FILE_PARAMETERS), "listed twice"),
    "item in the table": case(item(offset=32), "an item of 8 bytes at 32"),
    "item beyond": case(item(offset=MiB), "an item of 8 bytes"),
    "item near 2^32": case(item(offset=0xFFFFFFFF, length=0xFFFFFFFF), "an item of"),
    "item too long": case(item(length=MiB + 1), "an item of"),
    "item short": case(item(length=4), "has 4 bytes"),
    "items overlap": case(item(offset=64 * KiB + 4), "two uses"),
    "block in a state of no sense": case(table(entry(4, 4), 0, 0), "state 4"),
    "block in part, no parent": case(table(entry(4, 7), 0, 0), "state 7"),
    "block twice": case(table(entry(4), entry(4), 0), "two blocks"),
    "block in the headers": case(table(entry(0), 0, 0), "on the metadata"),
    "block in the log": case(table(entry(1), 0, 0), "on the metadata"),
    "block in its table": case(table(entry(2), 0, 0), "on the metadata"),
    "block in the metadata": case(table(entry(3), 0, 0), "on the metadata"),
    "block beyond": case(table(entry(6), 0, 0), "but the file has"),
    "last block beyond": case(table(0, 0, entry(6)), "but the file has"),
    "block at 2^63": case(table(entry((1 << 44) - 1), 0, 0), "would be at -"),
    "log unaligned": case(header(log_offset=MiB + PAGE), "not of whole MiB"),
    "log near 2^64": case(header(log_offset=(1 << 64) - MiB), "where no file reaches"),
    "log in the headers": case(header(log_offset=0), "not of whole MiB"),
    "log is the table": case(header(log_offset=TABLE_AT), "two uses"),
    "log beyond": case(header(log_id=LOG_ID, log_offset=1 << 40), "the log would be"),
    "log of 4 GiB": case(
        header(log_id=LOG_ID, log_length=0xFFF00000, log_offset=9 * MiB), "at most", UNSUPPORTED
    ),
    "log of another version": case(
        header(log_id=LOG_ID, log_version=1), "log of version 1", UNSUPPORTED
    ),
    "log bites its tail": case(log(log_entry(1, [], tail=PAGE)), "make no sequence"),
    "log of a tail elsewhere": case(
        log(log_entry(1, [], tail=0xFFFFF000), log_entry(2, [], tail=0xFFFFF000)),
        "make no sequence",
    ),
    "log of a longer file": case(
        log(log_entry(1, [], sizes=(TiB, TiB))), "the log was written when the file had"
    ),
    "log makes a file of 2^63": case(log(log_entry(1, [], sizes=(0, 1 << 63))), "wants a file"),
    "log changes what is beyond": case(
        log(log_entry(1, [(TiB, b"x" * PAGE)])), "changes 4096 bytes at"
    ),
    "log changes what overflows": case(
        log(log_entry(1, [(PAGE, (1 << 64) - PAGE)])), "changes 18446744073709547520"
    ),
    "log changes a table into nonsense": case(
        log(log_entry(1, [(TABLE_AT, (entry(4).to_bytes(8, "little") * 512))])), "two blocks"
    ),
    "log changes a size": case(
        log(log_entry(1, [(METADATA_AT + 64 * KiB, b"\xff" * PAGE)])), "blocks of"
    ),
    "log changes the region tables": case(
        log(log_entry(1, [(192 * KiB, 128 * KiB)])), "neither region table"
    ),
    "log of 70,000 changes": case(long_log, "changes in its log", UNSUPPORTED),
    "parent by URL": case(parent("nbd://host/x"), BELOW, UNSUPPORTED, **HERE),
    "parent in JSON": case(parent("json:{'driver':'nbd'}"), BELOW, UNSUPPORTED),
    "parent above": case(parent("..\\x.vhdx"), BELOW, UNSUPPORTED, **HERE),
    "parent on a drive": case(
        child({"absolute_win32_path": "C:\\x\\gone.vhdx"}),
        "gone.vhdx: No such",
        UNREADABLE,
        **HERE,
    ),
    "parent with an escape": case(
        parent("\x1b]0;x\x07\n\u202e"), r"\\x1b\]0;x\\x07\\n\\u202e", UNSUPPORTED
    ),
    "parent with NUL": case(parent("a\0b"), BELOW, UNSUPPORTED, **HERE),
    "parent of no name": case(child(), BELOW, UNSUPPORTED, **HERE),
    "parent is a FIFO": case(parent("fifo"), "not a regular file", UNREADABLE, **HERE),
    "parent is a link": case(parent("link"), "not a regular file", UNREADABLE, **HERE),
    "parent is itself": case(parent("disk.vhdx"), "needs itself", UNSUPPORTED, **HERE),
    "parent is another": case(
        parent("x.vhdx"),
        "was it modified",
        **HERE,
        beside={"x.vhdx": make_vhdx(data_write_id=b"z" * 16).content()},
    ),
    "parent is no VHDX": case(
        parent("x.vhdx"), "no signature", **HERE, beside={"x.vhdx": b"x" * MiB}
    ),
    "parent of another kind": case(
        child(raw=b"?" * 16 + bytes(4)), "a parent that is no VHDX", UNSUPPORTED
    ),
    "parent not told": case(kind(flags=ondisk.HAS_PARENT), "no parent locator"),
    "locator short": case(child(raw=b"short"), "too short"),
    "locator of 65535 entries": case(
        child(raw=ondisk.Locator(ondisk.VHDX_LOCATOR, 0, 0xFFFF).pack()), "cannot be read"
    ),
    "locator points behind itself": case(
        child(
            raw=ondisk.Locator(ondisk.VHDX_LOCATOR, 0, 1).pack()
            + ondisk.LocatorEntry(0xFFFFFFFF, 0xFFFFFFFF, 0xFFFF, 0xFFFF).pack()
        ),
        "cannot be read",
    ),
    "locator in half characters": case(
        child(
            raw=ondisk.Locator(ondisk.VHDX_LOCATOR, 0, 1).pack()
            + ondisk.LocatorEntry(0, 0, 3, 3).pack()
        ),
        "cannot be read",
    ),
    "locator of no parent": case(
        child(raw=ondisk.Locator(ondisk.VHDX_LOCATOR, 0, 0).pack()), "does not say which"
    ),
    "bitmap not there": case(partly(0), "no bitmap says which"),
    "bitmap beyond": case(partly(entry(9)), "but the file has"),
    "bitmap at 2^63": case(partly(entry((1 << 44) - 1)), "before the file|would be at -"),
    "bitmap in the metadata": case(partly(entry(3)), "on the metadata"),
    "bitmap is a block": case(partly(entry(4)), "on the metadata"),
    "bitmaps of 4 million holes": case(many_holes, "pieces", UNSUPPORTED),
    "truncated in the headers": case(lambda: make_vhdx().cut(70 * KiB), "a header would be"),
    "truncated in the regions": case(
        lambda: make_vhdx().cut(200 * KiB), "a region table would be"
    ),
    "truncated in the table": case(lambda: make_vhdx().cut(TABLE_AT), "would be"),
    "truncated in the metadata": case(
        lambda: make_vhdx().cut(METADATA_AT + PAGE), "the metadata would be"
    ),
    "truncated in a block": case(lambda: make_vhdx().cut(5 * MiB + 512), "block"),
}
