"""Which file is the parent of a differencing VHD, by what the header says.

A header has the parent's name, and locators: its path, relative or not, for this and that
system (Microsoft's specification, "Parent Locators").
"""

import struct
from collections.abc import Iterator

from imgconv.ondisk import vhd as ondisk
from imgconv.sources.checked import ImageFile

_LOCATOR = struct.Struct(">4sIIIQ")  # code, space, length, reserved, where
_LOCATORS = {b"W2ru": "utf-16-le", b"W2ku": "utf-16-le", b"MacX": "utf-8"}  # best first
_MAX_PATH = 4096  # bytes


def parent_name(image: ImageFile, header: ondisk.DynamicHeader) -> str:
    """Return the parent's path, relative to the image's folder if one such is known.

    Raises ImageMalformed for a locator that cannot be.
    """
    locators = dict(_read_locators(image, header))
    for code, encoding in _LOCATORS.items():
        if code in locators:
            return _as_path(locators[code].decode(encoding, "replace"))
    return _as_path(header.parent_name.decode("utf-16-be", "replace"))


def _read_locators(
    image: ImageFile, header: ondisk.DynamicHeader
) -> Iterator[tuple[bytes, bytes]]:
    for code, _, length, _, where in _LOCATOR.iter_unpack(header.parent_locators):
        if code in _LOCATORS:
            image.check(length <= _MAX_PATH, where, f"its parent has a path of {length} bytes")
            yield code, image.read(where, length, "a parent's path")


def _as_path(text: str) -> str:
    """Turn what Windows or a Mac calls a file into what it is called here."""
    path = text.partition("\0")[0].removeprefix("file://").replace("\\", "/")
    while path.startswith("./"):
        path = path[2:]
    return path
