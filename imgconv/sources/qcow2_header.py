"""What the header of a QCOW2 image and its extensions say, checked for what cannot be."""

from typing import NamedTuple

from imgconv.errors import ImageUnsupported
from imgconv.ondisk import qcow2 as ondisk
from imgconv.sources.checked import ImageFile
from imgconv.units import round_up

_MAX_EXTENSIONS = 64  # five kinds exist


class Header(NamedTuple):
    """The header, and the names it gives: of files as stored, None for what it needs not."""

    front: ondisk.HeaderV2
    tail: ondisk.HeaderV3Tail
    backing_file: str | None
    backing_format: str | None
    data_file: str | None

    def has(self, feature: int) -> bool:
        """Say whether an incompatible feature's bit is set."""
        return bool(self.tail.incompatible_features & feature)


def read_header(image: ImageFile) -> Header:
    """Read and check it; raises ImageMalformed, and ImageUnsupported for other versions."""
    raw = image.read(0, ondisk.HeaderV2.LAYOUT.size, "the header")
    front = ondisk.HeaderV2.unpack(raw)
    image.check(front.magic == ondisk.MAGIC, 0, "no signature of a QCOW2")
    tail = _read_tail(image, front)
    _check(image, front, tail)
    backing_file = _backing_file(image, front)
    extensions = _read_extensions(image, front, tail)
    return Header(
        front,
        tail,
        backing_file,
        extensions.get(ondisk.BACKING_FORMAT),
        extensions.get(ondisk.DATA_FILE_NAME),
    )


def _read_tail(image: ImageFile, front: ondisk.HeaderV2) -> ondisk.HeaderV3Tail:
    """Return what version 3 adds, of version 2 what that stands for."""
    if front.version == 2:
        return ondisk.HeaderV3Tail(0, 0, 0, 4, ondisk.HeaderV2.LAYOUT.size, 0, bytes(7))
    if front.version != 3:
        raise ImageUnsupported(
            f"{image.file.name}: a QCOW of version {front.version}; only 2 and 3 are known"
        )
    at = ondisk.HeaderV2.LAYOUT.size
    raw = image.read(at, ondisk.HeaderV3Tail.LAYOUT.size, "the header")
    tail = ondisk.HeaderV3Tail.unpack(raw)
    image.check(tail.header_length >= ondisk.V3_LENGTH, 100, "the header is too short")
    if tail.header_length == ondisk.V3_LENGTH:  # what follows are extensions
        tail = ondisk.HeaderV3Tail.unpack(raw[: ondisk.V3_LENGTH - at].ljust(len(raw), b"\0"))
    return tail


def _check(image: ImageFile, front: ondisk.HeaderV2, tail: ondisk.HeaderV3Tail) -> None:
    """Refuse what cannot be."""
    least, most = ondisk.MIN_CLUSTER_BITS, ondisk.MAX_CLUSTER_BITS
    if tail.incompatible_features & ondisk.EXTENDED_L2:
        least = ondisk.MIN_EXTENDED_BITS
    bits = front.cluster_bits
    image.check(least <= bits <= most, 20, f"clusters of 2^{bits} bytes")
    image.check(tail.header_length <= 1 << bits, 100, "the header is longer than a cluster")
    image.check(tail.refcount_order <= 6, 96, f"refcounts of 2^{tail.refcount_order} bits")
    image.check(front.size > 0, 24, "the disk has no size")
    image.check_size(front.size)
    packs = bool(tail.incompatible_features & ondisk.COMPRESSION_TYPE)
    known = tail.compression_type < len(ondisk.CODECS)
    image.check(known, 104, f"there is no compression type {tail.compression_type}")
    agrees = packs == (tail.compression_type != 0)
    image.check(agrees, 104, "compression type and feature bit do not agree")


def _backing_file(image: ImageFile, front: ondisk.HeaderV2) -> str | None:
    at, length = front.backing_file_offset, front.backing_file_size
    if at == 0:
        return None
    image.check(length <= ondisk.MAX_NAME, 16, f"a backing file's name of {length} bytes")
    inside = at + length <= 1 << front.cluster_bits
    image.check(inside, 8, "the backing file's name is not in the first cluster")
    return image.read(at, length, "the backing file's name").decode(errors="surrogateescape")


def _read_extensions(
    image: ImageFile, front: ondisk.HeaderV2, tail: ondisk.HeaderV3Tail
) -> dict[int, str]:
    """Walk the header's extensions; return those that are names, by their type."""
    at, found = tail.header_length, dict[int, str]()
    end = min(front.backing_file_offset or image.file.size, 1 << front.cluster_bits)
    for _ in range(_MAX_EXTENSIONS):
        if at + 8 > end:
            return found
        raw = image.read(at, 8, "a header extension")
        kind, length = int.from_bytes(raw[:4], "big"), int.from_bytes(raw[4:], "big")
        if kind == 0:
            return found
        image.check(at + 8 + length <= end, at + 4, f"a header extension of {length} bytes")
        if kind in (ondisk.DATA_FILE_NAME, ondisk.BACKING_FORMAT):
            name = image.read(at + 8, min(length, ondisk.MAX_NAME), "a name")
            image.check(kind not in found, at, "an extension that is there twice")
            found[kind] = name.decode(errors="surrogateescape")
        at += 8 + round_up(length, 8)
    raise image.error(at, f"more than {_MAX_EXTENSIONS} header extensions")
