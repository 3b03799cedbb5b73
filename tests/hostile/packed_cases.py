"""What is wrong with each hostile gzip, zstd or archive, and what must be said of it."""

import gzip
import random
import zlib

import pyzstd
from support.packed_image import (
    member,
    octal,
    old_gnu,
    packed,
    pax,
    record,
    seekable,
    sparse_1_0,
)

from hostile.case import MISMATCH, UNREADABLE, UNSUPPORTED, Case, case
from hostile.made import Made, make_qcow2, of
from imgconv.units import KiB, MiB, TiB

CONTENT = random.Random(1).randbytes(100 * KiB) + bytes(300 * KiB) + b"end." * 128
PLAIN = gzip.compress(CONTENT, mtime=0)
FRAME = pyzstd.compress(CONTENT, {pyzstd.CParameter.checksumFlag: 1})
TINY = pyzstd.compress(b"x")
SKIPPED = bytes.fromhex("502a4d18")
BELIEVED = 64 * MiB


def make_gz() -> Made:
    return of(PLAIN)


def make_zst() -> Made:
    return of(seekable((FRAME, len(CONTENT)), (TINY, 1)))


def make_tar_gz() -> Made:
    return of(sparse_1_0(b"2\n512\n512\n4096\n0\n", b"d" * 512))


def gz(content: bytes, words: str, code: str = "image-malformed", **more: object) -> Case:
    return case(lambda: of(content), words, code, **{"format": "raw.gz", **more})


def zst(content: bytes, words: str, code: str = "image-malformed", **more: object) -> Case:
    return case(lambda: of(content), words, code, **{"format": "raw.zst", **more})


def tar(content: bytes, words: str, code: str = "image-malformed", **more: object) -> Case:
    return case(lambda: of(content), words, code, **{"format": "raw.tar.gz", **more})


def changed(content: bytes, at: int, piece: bytes) -> bytes:
    """With other bytes at a place, which counts from the end if it is negative."""
    at %= len(content)
    return content[:at] + piece + content[at + len(piece) :]


def endless(blocks: int) -> bytes:
    """A frame that does not say how long it is, of blocks of 128 KiB of one byte."""
    block = (128 * KiB << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    return bytes.fromhex("28b52ffd0058") + block * blocks


def deflate_bomb(size: int) -> bytes:
    return gzip.compress(bytes(size), 9, mtime=0)


def zeros_behind(front: bytes, size: int) -> bytes:
    """A gzip of an archive whose front is followed by zeros."""
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(front) + packer.compress(bytes(size)) + packer.flush()


EMPTY_KINDS = {"hard link": b"1", "symbolic link": b"2", "device": b"3", "FIFO": b"6"}
RAW_GZ = {
    "qcow2 inside": case(
        lambda: of(gzip.compress(make_qcow2().content())), "holds what looks like", MISMATCH
    ),
    "VMDK descriptor inside": case(
        lambda: of(gzip.compress(b'# Disk DescriptorFile\ncreateType="monolithicFlat"')),
        "holds what looks like vmdk",
        MISMATCH,
    ),
    "gzip inside": case(
        lambda: of(gzip.compress(PLAIN)), "holds what looks like raw.gz", MISMATCH
    ),
    "named qcow2": case(make_gz, "looks like raw.gz but is named", MISMATCH, name="d.qcow2"),
    "cut": gz(PLAIN[:50_000], "in the middle of a member"),
    "cut in the trailer": gz(PLAIN[:-4].rstrip(b"\0"), "says otherwise|middle of a member"),
    "cut in the header": gz(PLAIN[:7], "no gzip member|middle of a member|compressed"),
    "wrong CRC-32": gz(changed(PLAIN, -8, b"\1\2\3\4"), "not that of the CRC-32"),
    "wrong size": gz(changed(PLAIN, -4, b"\1\2\3\4"), "holds 410112 bytes, but says otherwise"),
    "garbage behind": gz(PLAIN + b"garbage", "there is no gzip member"),
    "garbage far behind": gz(PLAIN + bytes(3000) + b"!", "what follows the last member"),
    "second member cut": gz(PLAIN + PLAIN[:99], "compressed data|middle of a member"),
    "method 7": gz(changed(PLAIN, 2, b"\7"), "has no method 7"),
    "unknown flags": gz(changed(PLAIN, 3, b"\x80"), "flags nobody knows"),
    "endless name": gz(changed(PLAIN, 3, b"\x08")[:10] + b"n" * 99_999, "does not end"),
    "extra field beyond": gz(
        changed(PLAIN, 3, b"\x04")[:10] + b"\xff\xff" + b"x" * 99, "compressed|middle"
    ),
    "wrong checksum of the header": gz(changed(PLAIN, 3, b"\2"), "header's checksum is wrong"),
    "no code": gz(PLAIN[:10] + b"\xff" * 99, "compressed data"),
    "no gzip": gz(b"something", "there is no gzip member"),
    "holds nothing": gz(gzip.compress(b""), "holds no byte"),
    "empty": gz(b"", "is empty", UNREADABLE),
    "70,000 members of nothing": gz(
        gzip.compress(b"", mtime=0) * 70_000, "hold next to nothing", UNSUPPORTED
    ),
    "bomb": gz(deflate_bomb(70 * MiB), "at most 67108864", UNSUPPORTED, size=BELIEVED),
    "bomb of many members": gz(
        deflate_bomb(MiB) * 70, "at most 67108864", UNSUPPORTED, size=BELIEVED
    ),
}
RAW_ZST = {
    "qcow2 inside": case(
        lambda: of(pyzstd.compress(make_qcow2().content())), "holds what looks like", MISMATCH
    ),
    "cut": zst(FRAME[:50_000], "in the middle of a frame"),
    "cut in the header": zst(FRAME[:5], "frame header|middle of a frame"),
    "wrong checksum": zst(changed(FRAME, -1, bytes([FRAME[-1] ^ 1])), "checksum"),
    "garbage behind": zst(FRAME + b"garbage", "no zstd frame"),
    "zeros behind": zst(FRAME + bytes(1500), "no zstd frame"),
    "no zstd": zst(b"something", "no zstd frame"),
    "holds nothing": zst(pyzstd.compress(b""), "holds no byte"),
    "skips beyond the end": zst(SKIPPED + b"\xff" * 4, "but the file has"),
    "block of no kind": zst(changed(FRAME, 9, b"\xff"), "no kind|middle|compressed"),
    "frame of 2^64": zst(
        bytes.fromhex("28b52ffde0") + b"\xff" * 8 + b"\1\0\0", "at most|history", UNSUPPORTED
    ),
    "70,000 frames of nothing": zst(TINY * 70_000, "hold next to nothing", UNSUPPORTED),
    "70,000 frames to skip": zst((SKIPPED + bytes(4)) * 70_000, "in a row", UNSUPPORTED),
    "70,000 blocks of nothing": zst(
        bytes.fromhex("28b52ffd0058") + b"\0\0\0" * 70_000, "hold next to nothing"
    ),
    "window of 128 MiB": zst(
        bytes.fromhex("28b52ffd0088010000"), "needs a history of 134217728", UNSUPPORTED
    ),
    "dictionary": zst(
        bytes.fromhex("28b52ffd0158aa") + bytes(9), "the dictionary", UNSUPPORTED
    ),
    "bomb": zst(
        pyzstd.compress(bytes(70 * MiB)), "at most 67108864", UNSUPPORTED, size=BELIEVED
    ),
    "endless": zst(endless(1000) + b"\1\0\0", "at most 67108864", UNSUPPORTED, size=BELIEVED),
    "bomb of a table": zst(
        seekable((FRAME, 1 << 30)), "at most 67108864", UNSUPPORTED, size=BELIEVED
    ),
    "table of more": zst(seekable((FRAME, len(CONTENT) + 1)), "before it should|too much"),
    "table of less": zst(seekable((FRAME, len(CONTENT) - 1)), "holds too much"),
    "table of zeros that are none": zst(
        seekable((pyzstd.compress(bytes(MiB)), 2 * MiB)), "before it should|too little|not end"
    ),
    "table of other frames": zst(seekable((FRAME, 410112), claimed=2), "no table has as many"),
    "table of 2^31 frames": zst(seekable((FRAME, 410112), claimed=1 << 31), "lists 2147483648"),
    "table that hides a frame": zst(
        seekable((FRAME + FRAME, len(CONTENT)), (FRAME, len(CONTENT))), "do not end at"
    ),
    "table elsewhere": zst(FRAME + seekable((FRAME, 410112)), "but the table is at"),
    "table of unknown flags": zst(
        changed(seekable((FRAME, 410112)), -5, b"\x04"), "of an unknown kind"
    ),
}
RAW_TAR_GZ = {
    "archive inside": case(
        lambda: of(packed(member(size=1024), member(name="x.raw", size=512), bytes(512))),
        "holds what looks like tar",
        MISMATCH,
    ),
    "gzip inside": case(
        lambda: of(packed(member(size=512), PLAIN[:512])), "looks like raw.gz", MISMATCH
    ),
    "no archive": tar(PLAIN, "no header of a member"),
    "cut": tar(packed(member(size=9999)), "a member ends at 10511"),
    "member of 10 TiB": tar(packed(member(size=10 * TiB)), "a member ends at 1099"),
    "member of 2^95": tar(
        packed(member(front={124: b"\x80" + b"\xff" * 11})), "a member ends at|at most"
    ),
    "negative size": tar(packed(member(front={124: b"\xff" * 12})), "a negative number"),
    "size of letters": tar(packed(member(size=512, front={124: b"0000000z000"})), "no number"),
    "wrong checksum": tar(
        packed(changed(member(size=512), 148, b"000000")), "no header of a member"
    ),
    "1500 members": tar(packed(member() * 1500), "more than 1000 members", UNSUPPORTED),
    "two disks": tar(
        packed(*[member(name=name, size=512) + b"d" * 512 for name in ("a.raw", "b.raw")]),
        "which file in the archive is the disk.* 'a.raw', 'b.raw'",
        UNSUPPORTED,
    ),
    "names with escapes": tar(
        packed(*[member(name=f"{n}\x1b]0;x\x07.raw", size=512) + bytes(512) for n in "ab"]),
        r"which file in the archive.*a\\x1b\]0;x\\x07",
        UNSUPPORTED,
    ),
    **{
        f"{name} to a file": tar(
            packed(member(type=kind, linkname="/etc/passwd", size=0)),
            "there is no file in the archive",
            UNSUPPORTED,
        )
        for name, kind in EMPTY_KINDS.items()
    },
    "holds nothing": tar(packed(member(size=0)), "there is no file", UNSUPPORTED),
    "sparse map out of order": tar(old_gnu(4096, 1024, 1024, 512, 0, 512), "not in order"),
    "sparse map overlaps": tar(old_gnu(4096, 1024, 0, 512, 256, 512), "not in order"),
    "sparse map of less": tar(old_gnu(4096, 1024, 0, 512), "512 bytes, but 1024 are"),
    "sparse map of more": tar(old_gnu(4096, 512, 0, 4096), "4096 bytes, but 512 are"),
    "sparse map past the end": tar(old_gnu(256, 512, 0, 512), "past it"),
    "sparse disk of nothing": tar(old_gnu(0, 0), "holds no byte"),
    "sparse disk of 8 GiB": tar(
        old_gnu((1 << 33) - 1, 512, 0, 512), "at most 67108864", UNSUPPORTED, size=BELIEVED
    ),
    "sparse map goes on and on": tar(
        gzip.compress(member(octal(0, 0).ljust(96, b"\0") + b"\1", type=b"S") + b"\1" * 4096),
        "ends in the middle of a sparse map",
    ),
    "sparse map of 30 MiB": tar(
        gzip.compress(
            member(bytes(96) + b"\1", type=b"S") + (bytes(504) + b"\1" * 8) * 60_000, 1
        ),
        "a sparse map does not end",
    ),
    "pax sparse map of text": tar(sparse_1_0(b"1\n0\nfive\n", bytes(512)), "what is no number"),
    "pax sparse map of 99999999 pieces": tar(sparse_1_0(b"99999999\n"), "99999999 pieces"),
    "pax sparse map too short": tar(sparse_1_0(b"5\n0\n"), "no number|does not end"),
    "pax sparse map of less": tar(sparse_1_0(b"1\n0\n512\n"), "but 0 are stored"),
    "pax sparse map overlaps": tar(
        sparse_1_0(b"2\n0\n512\n256\n512\n", bytes(1024)), "not in order"
    ),
    "pax sparse of another version": tar(
        packed(pax(record(b"GNU.sparse.major", b"0")), member(size=512), bytes(512)),
        "sparse in a format",
        UNSUPPORTED,
    ),
    "pax record not whole": tar(packed(pax(b"99 a=b\n"), member(size=1)), "not whole"),
    "pax record of no length": tar(packed(pax(b"x a=b\n"), member(size=1)), "has no length"),
    "pax size negative": tar(packed(pax(record(b"size", b"-1")), member()), "a size '-1'"),
    "pax size of 99 digits": tar(packed(pax(record(b"size", b"9" * 99)), member()), "a size"),
    "pax header of 2 MiB": tar(
        zeros_behind(member(type=b"x", size=2 * MiB), 3 * MiB), "extended headers of 2097152"
    ),
    "pax headers of 5 MiB": tar(
        packed(*[pax(record(b"a", b"") * 50_000) for _ in range(20)]),
        "extended headers of 500000",
    ),
    "long name of 2 MiB": tar(
        zeros_behind(member(type=b"L", size=2 * MiB), 3 * MiB), "extended headers of 2097152"
    ),
    "wrong CRC-32": tar(
        changed(packed(member(size=512), bytes(512)), -8, b"\1\2\3\4"), "not that of the CRC-32"
    ),
    "bomb": tar(
        zeros_behind(member(size=70 * MiB), 70 * MiB + 512),
        "at most 67108864",
        UNSUPPORTED,
        size=BELIEVED,
    ),
}
FAMILIES = {"raw.gz": RAW_GZ, "raw.zst": RAW_ZST, "raw.tar.gz": RAW_TAR_GZ}
