"""Raw disks in gzip, zstd and tar, of which any part may lie."""

import gzip
import tarfile
from collections.abc import Mapping

from imgconv.ondisk import tar as ondisk


def seekable(*frames: tuple[bytes, int], claimed: int | None = None) -> bytes:
    """Frames and a table that says what is claimed of their content."""
    table = b"".join(
        len(frame).to_bytes(4, "little") + size.to_bytes(4, "little") for frame, size in frames
    )
    count = len(frames) if claimed is None else claimed
    footer = count.to_bytes(4, "little") + b"\0" + bytes.fromhex("b1ea928f")
    size = (len(table) + len(footer)).to_bytes(4, "little")
    stored = b"".join(frame for frame, _ in frames)
    return stored + bytes.fromhex("5e2a4d18") + size + table + footer


def member(
    block: bytes = b"", front: Mapping[int, bytes] | None = None, **fields: object
) -> bytes:
    """A tar header; `block` is bytes for the front of GNU's fields, `front` are others by
    offset."""
    info = tarfile.TarInfo("disk.raw")
    for key, value in fields.items():
        setattr(info, key, value)
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for at, piece in {386: block, **(front or {})}.items():
        raw[at : at + len(piece)] = piece
    raw[148:156] = b"%06o\0 " % ondisk.checksum(bytes(raw))
    return bytes(raw)


def packed(*parts: bytes) -> bytes:
    return gzip.compress(b"".join(parts) + bytes(1024), mtime=0)


def octal(*numbers: int) -> bytes:
    return b"".join(b"%011o\0" % number for number in numbers)


def old_gnu(size: int, stored: int, *pieces: int) -> bytes:
    """An archive of one sparse file."""
    fields = octal(*pieces).ljust(97, b"\0") + octal(size)
    return packed(member(fields, type=b"S", size=stored), b"d" * stored)


def pax(*records: bytes) -> bytes:
    content = b"".join(records)
    return member(type=b"x", size=len(content)) + content + bytes(-len(content) % 512)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return b"%d %s=%s\n" % (length, key, value)


def sparse_1_0(text: bytes, stored: bytes = b"", size: int = 4096) -> bytes:
    content = text + bytes(-len(text) % 512) + stored
    keys = [(b"major", b"1"), (b"minor", b"0"), (b"realsize", b"%d" % size)]
    words = [record(b"GNU.sparse." + key, value) for key, value in keys]
    return packed(pax(*words), member(size=len(content)), content, bytes(-len(content) % 512))
