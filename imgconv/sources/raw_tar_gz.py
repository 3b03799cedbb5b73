"""Raw disks in a tar archive in gzip, as Google Cloud and Alibaba Cloud pass them on."""

from imgconv.sources.base import Source
from imgconv.sources.checked import ImageFile
from imgconv.sources.gzip_members import open_gzip
from imgconv.sources.streams import StreamedDisk
from imgconv.sources.tar_archive import Archive, choose_member
from imgconv.sources.tar_sparse import layout_of


def open_raw_tar_gz(image: ImageFile) -> Source:
    """Open the disk in an archive, which is unpacked once, into nothing, to verify it.

    Raises SourceErrors; ImageUnsupported if the archive does not say which file is the disk.
    """
    stream = open_gzip(image)
    archive = Archive(image, stream)
    member = choose_member(archive)
    layout = layout_of(archive, member)
    archive.check(layout.size > 0, member.at, "holds no byte; a disk has at least one sector")
    return StreamedDisk(image, layout.size, layout.mapping(stream.data), stream)
