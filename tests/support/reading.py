"""Reading whole images: by name, from memory, and as qemu-img reads them."""

from pathlib import Path

import imgconv
from imgconv import ReadOptions
from imgconv.sources import open_image
from support.engine import MemorySource
from support.peers import assert_qemu_img, qemu_name


def guest(
    image: Path, format_name: str | None = None, read: ReadOptions | None = None
) -> bytes:
    """All that an image holds; what it says is no data is zeros."""
    with imgconv.open(image, source_format=format_name, read=read) as disk:
        whole = disk.read(0, disk.size)
        for start, stop, is_data in disk.extents():
            assert is_data or not any(whole[start:stop])
        assert disk.read(65529, 200013) == whole[65529:265542]
        return whole


def guest_of(content: bytes, format_name: str) -> bytes:
    """All that an image in memory holds."""
    disk = open_image(MemorySource(content), format_name)
    buffer = bytearray(disk.size)
    disk.read_into(0, memoryview(buffer))
    return bytes(buffer)


def as_qemu_reads_it(
    image: Path, format_name: str, read: ReadOptions | None = None, threads: int = 3
) -> bytes:
    """Read and convert the image as qemu-img does; return what it holds."""
    theirs, ours = image.with_suffix(".theirs"), image.with_suffix(".ours")
    assert_qemu_img("convert", "-f", qemu_name(format_name), "-O", "raw", image, theirs)
    whole = guest(image, format_name, read)
    assert whole == theirs.read_bytes()
    imgconv.convert(
        image, ours, options="raw", source_format=format_name, read=read, threads=threads
    )
    assert ours.read_bytes() == whole
    return whole
