"""Where the bytes of a member are: in one piece, or if it is sparse in several."""

from dataclasses import dataclass

import numpy as np

from imgconv.errors import ImageUnsupported
from imgconv.ondisk import tar as ondisk
from imgconv.ranges import Column, Ranges, overlaps
from imgconv.sources.mapped import Mapping
from imgconv.sources.tar_archive import Archive, Member
from imgconv.units import KiB, round_up

_MOST = 1 << 20  # pieces of a member
_TEXT = 64 * KiB  # of a map in text, read at once
_NO_NUMBER = "a sparse map has what is no number"
_DIGITS = 18  # of a number in it, which so has room
_LIMIT = 10**_DIGITS
_BINARY = (0x80, 0, 0, 0)  # begins such a field, of which eight bytes are enough
_PLACES = 8 ** np.arange(ondisk.FIELD - 2, -1, -1, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The size of a disk, which of its ranges are stored, ascending, and where their bytes
    begin, one behind another."""

    size: int
    stored: Ranges
    start: int

    def mapping(self, data: Ranges) -> Mapping:
        """Map the disk to the archive, but what lies outside of `data`, which is zeros."""
        where = self.start + np.cumsum(self.stored.length) - self.stored.length
        row, _, shared = overlaps(Ranges(where, where + self.stored.length), data)
        shift = self.stored.start[row] - where[row]
        return Mapping(Ranges(shared.start + shift, shared.stop + shift), shared.start)


def layout_of(archive: Archive, member: Member) -> Layout:
    """Find out where a member's bytes are.

    Raises ImageMalformed, and ImageUnsupported for sparse files of other kinds than old GNU
    and GNU 1.0.
    """
    if member.kind == ondisk.SPARSE:
        return _old_gnu(archive, member)
    if any(key.startswith("GNU.sparse.") for key in member.pax):
        return _gnu_in_pax(archive, member)
    return Layout(member.size, Ranges.single(0, member.size), member.start)


def _old_gnu(archive: Archive, member: Member) -> Layout:
    numbers = [_numbers(archive, member, ondisk.header_map(member.block))]
    for blocks in archive.extensions(member.at, member.block):
        numbers.append(_numbers(archive, member, ondisk.extension_map(blocks)))
    size = archive.number(ondisk.real_size(member.block), member.at + 483)
    return _checked(archive, member, size, np.concatenate(numbers), member.start)


def _numbers(archive: Archive, member: Member, fields: bytes) -> Column:
    """Read the fields of a map: at once those that are as GNU tar writes them, eleven digits
    or, from 8 GiB on, binary, and those that are blank."""
    rows = np.frombuffer(fields, dtype=np.uint8).reshape(-1, ondisk.FIELD)
    digits, binary = rows[:, :-1] - ord("0"), rows[:, 4:].copy().view(">u8")[:, 0]
    kinds = [
        (digits < 8).all(axis=1) & (rows[:, -1] == 0),
        (rows[:, :4] == _BINARY).all(axis=1) & (binary < _LIMIT),
        ~rows.any(axis=1),
    ]
    found = np.select(kinds, [digits @ _PLACES, binary.astype(np.int64), 0])
    for row in np.flatnonzero(~np.any(kinds, axis=0)).tolist():
        field = fields[row * ondisk.FIELD : (row + 1) * ondisk.FIELD]
        number = archive.number(field, member.at)
        archive.check(number < _LIMIT, member.at, "a sparse map beyond any disk")
        found[row] = number
    return found


def _gnu_in_pax(archive: Archive, member: Member) -> Layout:
    if [member.pax.get(f"GNU.sparse.{key}") for key in ("major", "minor")] != ["1", "0"]:
        raise ImageUnsupported(
            f"{archive.name}: {member.name!a} is sparse in a format of GNU's that is neither "
            "1.0 nor the old one"
        )
    size = archive.decimal(member.pax.get("GNU.sparse.realsize", ""), member.at)
    numbers, length = _text_map(archive, member)
    start = member.start + round_up(length, ondisk.BLOCK)
    return _checked(archive, member, size, numbers, start)


def _text_map(archive: Archive, member: Member) -> tuple[Column, int]:
    """Read the lines before a member's bytes: how many ranges, and two numbers for each.

    Returns those, and the length of the text.
    """
    found, begun = [np.empty(0, dtype=np.int64)], b""
    at, length, wanted = 0, 0, 1
    while wanted:
        text = min(_TEXT, member.size - at)
        archive.check(text > 0, member.start, "a sparse map does not end")
        *lines, begun = (begun + archive.read(member.start + at, text, "a map")).split(b"\n")
        archive.check(bool(lines), member.start, _NO_NUMBER)
        at += text
        if not length:
            count = archive.decimal(lines[0].decode("latin-1"), member.start)
            archive.check(count <= _MOST, member.start, f"a sparse map of {count} pieces")
            wanted += 2 * count
        lines = lines[:wanted]
        right = all(line.isdigit() and len(line) <= _DIGITS for line in lines)
        archive.check(right, member.start, _NO_NUMBER)
        found.append(np.array([int(line) for line in lines], dtype=np.int64))
        length += sum(map(len, lines)) + len(lines)
        wanted -= len(lines)
    return np.concatenate(found)[1:], length


def _checked(
    archive: Archive, member: Member, size: int, numbers: Column, start: int
) -> Layout:
    """Make the layout of offsets and lengths, if they can be so."""
    pairs = numbers.reshape(-1, 2)
    archive.check_size(size)
    pairs = pairs[pairs[:, 1] > 0]
    offset, stop = pairs[:, 0], pairs.sum(axis=1)
    apart = not (offset[1:] < stop[:-1]).any() and not (stop > size).any()
    archive.check(apart, member.at, "the pieces of a sparse file are not in order, or past it")
    stored, room = int(pairs[:, 1].sum()), member.start + member.size - start
    reason = f"a sparse file's pieces have {stored} bytes, but {room} are stored"
    archive.check(stored == room, member.at, reason)
    return Layout(size, Ranges(offset, stop), start)
