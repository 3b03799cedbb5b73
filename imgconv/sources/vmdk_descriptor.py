"""The text that says what a VMDK is, and of which files it is made: data, never orders."""

import re
from dataclasses import dataclass

from imgconv.errors import ImageUnsupported
from imgconv.sources.checked import ImageFile
from imgconv.units import MiB

MAX_TEXT = MiB
MAX_EXTENTS = 4096
NO_PARENT = 0xFFFFFFFF
_KEYS = ("createtype", "cid", "parentcid", "parentfilenamehint")
_ACCESS = re.compile(r"(RW|RDONLY|NOACCESS)\s")
_EXTENT = re.compile(
    r"(RW|RDONLY|NOACCESS)[ \t]+([0-9]{1,18})[ \t]+([A-Z]+)"
    r'(?:[ \t]+"([^"]+)"(?:[ \t]+([0-9]{1,18}))?)?(?:[ \t].*)?'
)


@dataclass(frozen=True, slots=True)
class ExtentLine:
    """A line that tells where a part of the disk is; sizes and offsets in sectors."""

    access: str
    sectors: int
    kind: str
    name: str
    offset: int


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a descriptor says, as far as it matters for reading.

    `encryption` is what it says first of how the disk is encrypted, None if it is not.
    """

    create_type: str
    content_id: int
    parent_id: int
    parent_name: str
    extents: tuple[ExtentLine, ...]
    encryption: str | None

    @property
    def has_parent(self) -> bool:
        """Whether the disk needs another one."""
        return self.parent_id != NO_PARENT or bool(self.parent_name)


def parse(image: ImageFile, at: int, raw: bytes) -> Descriptor:
    """Return what the text at `at` says, which ends at its first zero byte.

    Raises ImageMalformed for a line that looks like an extent and is none, and for what is
    said twice: of two readers one might believe the first, and the other the last.
    """
    text = raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    values, extents, encryption = dict[str, str](), list[ExtentLine](), None
    for line in (line.strip() for line in text.split("\n")):
        if _ACCESS.match(line):
            extents.append(_parse_extent(image, at, line))
            image.check(len(extents) <= MAX_EXTENTS, at, f"more than {MAX_EXTENTS} extents")
            continue
        key, equals, value = line.partition("=")
        key = key.strip().lower()
        if key.startswith("encryption."):
            encryption = encryption or key
        if equals and key in _KEYS:
            image.check(key not in values, at, f"the descriptor says {key} twice")
            values[key] = value.strip().strip('"')
    image.check("createtype" in values, at, "the descriptor has no createType")
    return Descriptor(
        values["createtype"],
        _parse_id(image, at, values.get("cid", "0")),
        _parse_id(image, at, values.get("parentcid", f"{NO_PARENT:x}")),
        values.get("parentfilenamehint", ""),
        tuple(extents),
        encryption,
    )


def _parse_extent(image: ImageFile, at: int, line: str) -> ExtentLine:
    found = _EXTENT.fullmatch(line)
    if found is None:
        raise image.error(at, f"the descriptor has an extent {line[:60]!a}")
    access, sectors, kind, name, offset = found.groups()
    named = kind != "ZERO"
    image.check((name is not None) == named, at, f"an extent {line[:60]!a}")
    image.check((offset is not None) <= named, at, f"an extent {line[:60]!a}")
    return ExtentLine(access, int(sectors), kind, name or "", int(offset or 0))


def _parse_id(image: ImageFile, at: int, said: str) -> int:
    possible = re.fullmatch("[0-9a-fA-F]{1,8}", said) is not None
    image.check(possible, at, f"the descriptor has a content id {said[:60]!a}")
    return int(said, 16)


def names(descriptor: Descriptor) -> str:
    """Return the files that it names, in a form that fits a line."""
    said = [ascii(extent.name[:60]) for extent in descriptor.extents if extent.name]
    more = f" and {len(said) - 3} more" if len(said) > 3 else ""
    return (", ".join(said[:3]) or "none") + more


def unsupported(image: ImageFile, descriptor: Descriptor) -> ImageUnsupported:
    """Return what to raise for a disk of a type that is not read."""
    return ImageUnsupported(
        f"{image.file.name}: a VMDK of type {descriptor.create_type[:60]!a} is not read"
    )
