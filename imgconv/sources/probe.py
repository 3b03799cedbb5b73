"""Recognising image formats by their content, strictly.

A guest can write any bytes into its own raw disk, so content alone never decides:
an image is raw only when the user says so or when nothing in it looks like another format.
"""

from imgconv.errors import FormatMismatch, ImageEncrypted, OptionError
from imgconv.names import canonical, of_file
from imgconv.sources import TABLE
from imgconv.sources.base import Source
from imgconv.units import KiB

_FRONT = (  # offset, magic, format
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"\xbe\xba\xfe\xca\0\0\0\0", "vmdk"),  # SESPARSE
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"# Disk Descriptor File", "vmdk"),
    (0, b"#Disk DescriptorFile", "vmdk"),
    (0, b"#Disk Descriptor File", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"\x1f\x8b\x08", "raw.gz"),
    (0, b"\x28\xb5\x2f\xfd", "raw.zst"),
    (257, b"ustar", "tar"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"Bochs Virtual HD Image", "bochs"),
    (0, b"EVF\t\r\n\xff\0", "ewf"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
)
_VHD_COOKIE = b"conectix"
_SKIPPABLE = b"\x2a\x4d\x18"  # behind a byte of 0x50 to 0x5f; some zstd files begin so
_FRONT_OF_GZIP = 64 * KiB
PACKED = ("raw.gz", "raw.zst", "raw.tar.gz")
_DMG = b"koly\0\0\0\x04\0\0\x02\0"
READABLE = ("raw", *TABLE)


def detect(source: Source, *, end_too: bool = True) -> tuple[str, ...]:
    """Return the formats whose magic the bytes of `source` carry, most often none or one.

    Only a fixed VHD is known by its end, which can be far to go.
    """
    front = _read(source, 0, 512)
    found = {name for at, magic, name in _FRONT if front[at : at + len(magic)] == magic}
    end = _read(source, max(source.size - 512, 0), 512) if end_too else b""
    # A fixed VHD has its only cookie in the last sector; very old ones one byte later.
    if _VHD_COOKIE in (end[:8], end[1:9]):
        found.add("vhd")
    if front[1:4] == _SKIPPABLE and front[0] & 0xF0 == 0x50:
        found.add("raw.zst")
    if found == {"raw.gz"} and _holds_tar(source):
        found = {"raw.tar.gz"}
    if end.startswith(_DMG):
        found.add("dmg")
    return tuple(sorted(found))


def _holds_tar(source: Source) -> bool:
    """Say whether what a gzip holds begins with the header of a tar archive."""
    from imgconv.codecs import gzip_front
    from imgconv.ondisk.tar import BLOCK, is_header

    return is_header(gzip_front(_read(source, 0, _FRONT_OF_GZIP), BLOCK))


def _read(source: Source, offset: int, length: int) -> bytes:
    buffer = bytearray(min(length, source.size - offset))
    source.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def _check_declared(source: Source, name: str) -> None:
    """Refuse to read as one format what looks like others only."""
    found = detect(source)
    if found and name not in found:
        raise FormatMismatch(
            f"{source.name}: looks like {' and '.join(found)}, but {name} was said (-f)"
        )


def choose_format(source: Source, declared: str | None) -> str:
    """Return the format to read `source` in, given what the user declared, if anything.

    Of content that looks like several formats, what was declared is the one. Raises
    FormatMismatch when content looks like others only or, without a declaration, content and
    file name do not agree, ImageEncrypted for LUKS, and OptionError for a format that imgconv
    does not read.
    """
    if declared is not None:
        name = canonical(declared)
        if name not in READABLE:
            choice = ", ".join(READABLE)
            raise OptionError(f"cannot read format {declared!r}; formats: {choice}")
        if name not in ("raw", *PACKED):  # what is packed may look like anything
            _check_declared(source, name)
        return name
    found, named = detect(source), of_file(source.name)
    if not found and named in (None, "raw"):
        return "raw"
    if not found:
        raise FormatMismatch(
            f"{source.name}: is named like {named} but its content is not; "
            "to convert its bytes as they are, say -f raw"
        )
    if found == ("luks",):
        raise ImageEncrypted(
            f"{source.name}: is encrypted (LUKS); to convert its bytes as they are, say -f raw"
        )
    if len(found) > 1 or found[0] not in READABLE:
        raise FormatMismatch(
            f"{source.name}: looks like {' and '.join(found)}, which imgconv cannot read"
            f"{'' if len(found) > 1 else ' yet'}; to convert its bytes as they are, say -f raw"
        )
    if named not in (None, found[0]):
        raise FormatMismatch(
            f"{source.name}: looks like {found[0]} but is named like {named}; "
            f"say -f {found[0]}, or -f raw to convert its bytes as they are"
        )
    return found[0]


def check_inside(disk: Source, format_name: str) -> None:
    """Raise FormatMismatch if what was packed, in a format found by content and name, is an
    image itself.

    The end of a zstd is not looked at: it may take unpacking everything.
    """
    if format_name not in PACKED:
        return
    if inside := detect(disk, end_too=format_name != "raw.zst"):
        raise FormatMismatch(
            f"{disk.name}: holds what looks like {' and '.join(inside)}; unpack it first, or "
            f"say -f {format_name} to convert its bytes as they are"
        )
