"""Raw disks in gzip, of any number of members, whoever made them."""

from imgconv.sources.base import Source
from imgconv.sources.checked import ImageFile
from imgconv.sources.gzip_members import open_gzip
from imgconv.sources.streams import whole_disk


def open_raw_gz(image: ImageFile) -> Source:
    """Open the disk in a gzip, which is decoded once to learn how much it holds.

    Raises SourceErrors.
    """
    return whole_disk(image, open_gzip(image))
