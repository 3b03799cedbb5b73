"""What a differencing VHDX says of its parent."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from imgconv.errors import ImageUnsupported
from imgconv.ondisk import vhdx as ondisk
from imgconv.sources.checked import ImageFile

_IDS = "parent_linkage", "parent_linkage2"
_RELATIVE, _ABSOLUTE = "relative_path", "absolute_win32_path"


@dataclass(frozen=True, slots=True)
class Parent:
    """The name of the parent's file, which ids of its data it may have, and where in the
    image this is said."""

    name: str
    ids: tuple[bytes, ...]
    at: int


def read_locator(image: ImageFile, at: int, raw: bytes) -> Parent:
    """Read the parent locator, which the image has at `at`.

    Raises ImageMalformed, and ImageUnsupported for one of another kind.
    """
    image.check(len(raw) >= ondisk.Locator.LAYOUT.size, at, "the parent locator is too short")
    locator = ondisk.Locator.unpack(raw)
    if locator.kind != ondisk.VHDX_LOCATOR:
        raise ImageUnsupported(
            f"{image.file.name}: needs a parent that is no VHDX "
            f"({ondisk.guid_text(locator.kind)})"
        )
    try:
        values = dict(_entries(raw, locator.count))
        ids = tuple(ondisk.guid(values[key]) for key in _IDS if key in values)
    except (ValueError, struct.error):
        raise image.error(at, "the parent locator cannot be read") from None
    known = bool(ids) and all(len(found) == len(ondisk.NO_ID) for found in ids)
    image.check(known, at, "the parent locator does not say which parent")
    return Parent(_name(values), ids, at)


def _entries(raw: bytes, count: int) -> Iterator[tuple[str, str]]:
    """Yield keys and values; ValueError for one that is not there or not UTF-16."""
    first, step = ondisk.Locator.LAYOUT.size, ondisk.LocatorEntry.LAYOUT.size
    for low in range(first, first + count * step, step):
        entry = ondisk.LocatorEntry.unpack(raw[low : low + step])
        yield (
            _text(raw, entry.key_offset, entry.key_length),
            _text(raw, entry.value_offset, entry.value_length),
        )


def _text(raw: bytes, offset: int, length: int) -> str:
    if offset + length > len(raw):
        raise ValueError("a text behind the end")
    return raw[offset : offset + length].decode("utf-16-le")


def _name(values: dict[str, str]) -> str:
    """Return the path to the parent from the image's folder, as this system writes it.

    Of a path on a Windows machine, which begins with a drive, only the last part can be of
    use here.
    """
    if relative := values.get(_RELATIVE, "").replace("\\", "/"):
        return relative.removeprefix("./")
    return values.get(_ABSOLUTE, "").rpartition("\\")[2]
