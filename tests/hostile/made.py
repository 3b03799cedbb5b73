"""Small images of every format, of which any field can be made wrong.

Each function makes a sound image that holds a little data; what a caller passes replaces
fields of its records (by name), entries of its tables, or bytes at any place.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from support import disks
from support.records import vdi_header, vhd_footer, vhd_header

from imgconv.ondisk import qcow2, vhd, vmdk, vmdk_esx
from imgconv.units import SECTOR, KiB, round_up

Fields = Mapping[str, Any]
Pieces = Mapping[int, bytes]


@dataclass(frozen=True, kw_only=True)
class Made:
    """A file: its size in bytes and what it holds where, holes elsewhere."""

    size: int
    pieces: Pieces = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        return disks.write(path, self.size, self.pieces)

    def content(self) -> bytes:
        whole = bytearray(self.size)
        for at, piece in self.pieces.items():
            whole[at : at + len(piece)] = piece
        return bytes(whole)

    def cut(self, size: int) -> "Made":
        """The front of the file only."""
        kept = {at: piece[: size - at] for at, piece in self.pieces.items() if at < size}
        return Made(size=size, pieces=kept)

    def grown(self, size: int) -> "Made":
        """With a hole behind."""
        return Made(size=size, pieces=self.pieces)

    def over(self, pieces: Pieces) -> "Made":
        """With other bytes at some places."""
        size = max([self.size, *(at + len(piece) for at, piece in pieces.items())])
        return Made(size=size, pieces={**self.pieces, **pieces})


def of(content: bytes) -> Made:
    """An image that is mostly zeros takes little."""
    step = 64 * KiB
    cuts = {low: content[low : low + step] for low in range(0, len(content), step)}
    some = {low: cut for low, cut in cuts.items() if cut.count(0) < len(cut)}
    return Made(size=len(content), pieces=some)


# QCOW2: clusters of 4 KiB, which are header, refcount table and block, L1, L2, data, data.

C = 4 * KiB
L1, L2, DATA, MORE = 3 * C, 4 * C, 5 * C, 6 * C
COPIED, COMPRESSED = qcow2.COPIED, qcow2.COMPRESSED


def words(table: Mapping[int, int], kind: str = ">Q") -> dict[int, bytes]:
    """Entries by number, as pieces from the table's begin."""
    width = struct.calcsize(kind)
    return {number * width: struct.pack(kind, entry) for number, entry in table.items()}


def at(start: int, pieces: Pieces) -> dict[int, bytes]:
    return {start + offset: piece for offset, piece in pieces.items()}


def make_qcow2(
    front: Fields = {},
    tail: Fields = {},
    l1: Mapping[int, int] = {0: L2 | COPIED},
    l2: Mapping[int, int] = {0: DATA | COPIED, 2: MORE | COPIED},
    extensions: bytes = b"",
    pieces: Pieces = {},
    size: int = 7 * C,
) -> Made:
    """A disk of four clusters, of which the first and the third hold data."""
    header = qcow2.HeaderV2(
        magic=qcow2.MAGIC,
        version=3,
        backing_file_offset=0,
        backing_file_size=0,
        cluster_bits=12,
        size=4 * C,
        crypt_method=0,
        l1_size=1,
        l1_table_offset=L1,
        refcount_table_offset=C,
        refcount_table_clusters=1,
        nb_snapshots=0,
        snapshots_offset=0,
    )
    rest = qcow2.HeaderV3Tail(0, 0, 0, 4, 112, 0, bytes(7))
    head = replace(header, **front).pack() + replace(rest, **tail).pack() + extensions
    inside = {
        0: head,
        C: struct.pack(">Q", 2 * C),
        2 * C: struct.pack(">7H", *[1] * 7),
        **at(L1, words(l1)),
        **at(L2, words(l2)),
        DATA: b"d" * C,
        MORE: b"m" * C,
        **pieces,
    }
    return Made(size=max(size, *(a + len(p) for a, p in inside.items())), pieces=inside)


def extension(kind: int, content: bytes) -> bytes:
    return struct.pack(">II", kind, len(content)) + content.ljust(
        round_up(len(content), 8), b"\0"
    )


# VHD: blocks of 64 KiB.

VHD_BLOCK = 64 * KiB
VHD_STORED = SECTOR + VHD_BLOCK  # with its bitmap
VHD_HEAD = 2048


def make_vhd(
    footer: Fields = {},
    header: Fields = {},
    table: tuple[int, ...] = (4, vhd.UNALLOCATED, 4 + VHD_STORED // SECTOR),
    seal: bool = True,
    bitmap: bytes = b"\xff" * 16,
    end: Fields = {},
    pieces: Pieces = {},
) -> Made:
    """A dynamic disk of three blocks, of which the second is not there; `end` are fields of
    the footer at the end only."""
    tail, dynamic = vhd_footer(3 * VHD_BLOCK), vhd_header(VHD_BLOCK)
    changed, head = replace(tail, **footer), replace(dynamic, **header)
    last = replace(changed, **end)
    if seal:
        changed, head, last = changed.sealed(), head.sealed(), last.sealed()
    blocks = {
        VHD_HEAD + row * VHD_STORED: bitmap.ljust(SECTOR, b"\0") + letter * VHD_BLOCK
        for row, letter in enumerate((b"f", b"l"))
    }
    foot = VHD_HEAD + 2 * VHD_STORED
    front = {0: changed.pack(), SECTOR: head.pack(), 1536: b"\xff" * SECTOR}
    entries = at(1536, words(dict(enumerate(table)), ">I"))
    inside = {**front, **entries, **blocks, foot: last.pack(), **pieces}
    return Made(size=max(a + len(p) for a, p in inside.items()), pieces=inside)


def fixed_vhd(content: bytes, footer: Fields = {}) -> Made:
    fields = {
        "disk_type": vhd.FIXED,
        "data_offset": vhd.NO_OFFSET,
        "current_size": len(content),
    }
    raw = make_vhd(footer={**fields, **footer}).pieces[0]
    return of(content + raw)


# VDI: blocks of 128 KiB.

VDI_BLOCK = 128 * KiB


def make_vdi(
    fields: Fields = {}, table: tuple[int, ...] = (1, 0xFFFFFFFE, 0), pieces: Pieces = {}
) -> Made:
    """A dynamic disk of three blocks, of which the second is zeros."""
    header = vdi_header(3 * VDI_BLOCK, VDI_BLOCK)
    inside = {
        0: replace(header, **fields).pack(),
        **at(512, words(dict(enumerate(table)), "<I")),
        1024: b"l" * VDI_BLOCK,
        1024 + VDI_BLOCK: b"f" * VDI_BLOCK,
        **pieces,
    }
    return Made(size=max(a + len(p) for a, p in inside.items()), pieces=inside)


# VMDK.


def text(
    *extents: str,
    kind: str = "monolithicFlat",
    parent: str = "ffffffff",
    more: tuple[str, ...] = (),
) -> str:
    """A descriptor."""
    lines = ("# Disk DescriptorFile", "version=1", "CID=12345678", f"parentCID={parent}")
    rest = (f'createType="{kind}"', "# Extent description", *extents, *more, "")
    return "\n".join((*lines, *rest))


GRAIN = 4 * KiB
VMDK_DIRECTORY, VMDK_TABLE, VMDK_GRAINS = 21 * SECTOR, 22 * SECTOR, 32 * SECTOR


def make_vmdk(
    header: Fields = {},
    descriptor: str | bytes | None = None,
    directory: Mapping[int, int] = {0: 22},
    table: Mapping[int, int] = {0: 32, 2: 40},
    pieces: Pieces = {},
) -> Made:
    """A monolithicSparse disk of four grains of 4 KiB, of which two hold data."""
    front = vmdk.SparseHeader(
        magic=vmdk.MAGIC,
        version=1,
        flags=1,
        capacity=4 * GRAIN // SECTOR,
        grain_size=GRAIN // SECTOR,
        descriptor_offset=1,
        descriptor_size=20,
        table_entries=512,
        redundant_directory_offset=0,
        directory_offset=21,
        overhead=32,
        unclean_shutdown=0,
        newline_test=vmdk.NEWLINE_TEST,
        compression=0,
        padding=bytes(433),
    )
    said = text('RW 32 SPARSE "x.vmdk"', kind="monolithicSparse")
    said = said if descriptor is None else descriptor  # type: ignore[assignment]
    inside = {
        0: replace(front, **header).pack(),
        SECTOR: said.encode() if isinstance(said, str) else said,
        **at(VMDK_DIRECTORY, words(directory, "<I")),
        **at(VMDK_TABLE, words(table, "<I")),
        VMDK_GRAINS: b"f" * GRAIN,
        VMDK_GRAINS + GRAIN: b"t" * GRAIN,
        **pieces,
    }
    return Made(size=max(a + len(p) for a, p in inside.items()), pieces=inside)


STREAM_FLAGS = 1 | vmdk.FLAG_COMPRESSED | vmdk.FLAG_MARKERS


def marker(sector: int, stream: bytes, length: int | None = None) -> bytes:
    """A compressed grain, which may lie about its length."""
    head = vmdk.GrainMarker(sector, len(stream) if length is None else length).pack()
    return (head + stream).ljust(round_up(len(head + stream), SECTOR), b"\0")


def make_stream(
    header: Fields = {},
    grains: Pieces = {},
    directory: Mapping[int, int] = {0: 22},
    table: Mapping[int, int] = {0: 32, 2: 40},
    pieces: Pieces = {},
) -> Made:
    """A streamOptimized disk with its tables in front, as open-vmdk writes it; `grains`
    are markers with their streams by file offset."""
    return make_vmdk(
        header={"version": 3, "flags": STREAM_FLAGS, "compression": vmdk.DEFLATE, **header},
        descriptor=text('RW 32 SPARSE "x.vmdk"', kind="streamOptimized"),
        directory=directory,
        table=table,
        pieces={**grains, **pieces},
    )


def make_cowd(
    header: Fields = {}, directory: Mapping[int, int] = {0: 5}, table: Mapping[int, int] = {}
) -> Made:
    """A COWD extent of 4096 grains of a sector."""
    front = vmdk_esx.CowdHeader(vmdk_esx.COWD_MAGIC, 1, 3, 4096, 1, 4, 1, 0)
    inside = {
        0: replace(front, **header).pack(),
        **at(4 * SECTOR, words(directory, "<I")),
        **at(5 * SECTOR, words(table, "<I")),
    }
    return Made(size=40 * SECTOR, pieces=inside)


def make_sesparse(
    header: Mapping[int, int] = {},
    directory: Mapping[int, int] = {0: 0x10000000 << 32},
    table: Mapping[int, int] = {0: 3 << 60},
    volatile: tuple[int, ...] = (vmdk_esx.SeSparseVolatileHeader.MAGIC, 0, 0, 0),
) -> Made:
    """A space-efficient extent of 4096 grains; `header` are words of it by number."""
    fields = [0] * 26
    fields[:5] = vmdk_esx.SESPARSE_MAGIC, vmdk_esx.SESPARSE_VERSION, 8 * 4096, 8, 64
    fields[10:12], fields[16:18] = (1, 1), (2, 1)  # volatile header, directory
    fields[18:20], fields[24:26] = (8, 64), (72, 8)  # tables, grains
    for number, word in header.items():
        fields[number] = word
    inside = {
        0: struct.pack("<26Q", *fields),
        SECTOR: struct.pack("<4Q", *volatile),
        **at(2 * SECTOR, words(directory, "<Q")),
        **at(8 * SECTOR, words(table, "<Q")),
        72 * SECTOR: b"g" * 4096,
    }
    return Made(size=80 * SECTOR, pieces=inside)
