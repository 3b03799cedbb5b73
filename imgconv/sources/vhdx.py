"""VHDX images: fixed, dynamic, and over a parent where that is allowed, of every block size.

A log that waits to be replayed is replayed in memory.
"""

from imgconv.ondisk import vhdx as ondisk
from imgconv.sources.base import Source
from imgconv.sources.checked import ImageFile
from imgconv.sources.layered import Layer
from imgconv.sources.mapped import MappedSource
from imgconv.sources.references import open_reference
from imgconv.sources.vhdx_blocks import read_blocks
from imgconv.sources.vhdx_locator import Parent, read_locator
from imgconv.sources.vhdx_log import replayed
from imgconv.sources.vhdx_metadata import read_header, read_kind, read_regions


def open_vhdx(image: ImageFile) -> Source:
    """Read headers, log, metadata and block table, and return the disk.

    Raises ImageMalformed, ImageUnsupported for one that is too large or needs a parent that
    is not allowed, and what reading a file raises.
    """
    header = read_header(image)
    present = replayed(image, header)
    regions = read_regions(present, header)
    kind = read_kind(present, regions.metadata)
    layered = kind.locator is not None
    mapping, own = read_blocks(present, kind.blocks, regions, layered=layered)
    unclean = f"{image.file.name}: was not closed properly; read with the changes in its log"
    warnings = (unclean,) if present is not image else ()
    disk = MappedSource(present.file, kind.blocks.disk_size, mapping, warnings)
    if kind.locator is None:
        return disk
    return Layer(disk, own).over(_open_parent(image, read_locator(present, *kind.locator)))


def _open_parent(image: ImageFile, wanted: Parent) -> Source:
    """Open the parent, which must be the one that this image was made for."""
    below = open_reference(image, wanted.name, "its parent")
    try:
        parent = image.needed(below)
        found = read_header(parent).data_write_id
        image.check(
            found in wanted.ids,
            wanted.at,
            f"its parent is to have the id {' or '.join(map(ondisk.guid_text, wanted.ids))}, "
            f"but has {ondisk.guid_text(found)}; was it modified?",
        )
        return open_vhdx(parent)
    except BaseException:
        below.close()
        raise
