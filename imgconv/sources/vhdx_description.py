"""What the headers and metadata of a VHDX tell, its log replayed in memory."""

from imgconv.errors import one_line
from imgconv.sources.checked import ImageFile
from imgconv.sources.description import PARENT, Description, Options, Reference
from imgconv.sources.vhdx_locator import read_locator
from imgconv.sources.vhdx_log import replayed
from imgconv.sources.vhdx_metadata import read_header, read_kind, read_regions


def describe_vhdx(image: ImageFile) -> Description:
    """Say what headers and metadata tell.

    Raises ImageMalformed, ImageUnsupported for metadata that one would have to know, and what
    reading the file raises.
    """
    header = read_header(image)
    present = replayed(image, header)
    kind = read_kind(present, read_regions(present, header).metadata)
    subformat, parent = "fixed" if kind.fixed else "dynamic", tuple[Reference, ...]()
    if kind.locator is not None:
        subformat = "differencing"
        name = one_line(read_locator(present, *kind.locator).name)
        parent = (Reference(role=PARENT, name=name, format="vhdx"),)
    found: Options = {
        "subformat": subformat,
        "block_size": kind.blocks.block_size,
        "sector_size": kind.blocks.sector_size,
    }
    return Description(
        virtual_size=kind.blocks.disk_size,
        version=str(header.version),
        options=found,
        references=parent,
        dirty=present is not image,
    )
