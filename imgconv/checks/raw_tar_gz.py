"""Archives in gzip: that, and then all headers, sparse maps, and which member is the disk."""

import posixpath

from imgconv.checks.inspection import Inspection
from imgconv.checks.raw_gz import check_raw_gz
from imgconv.checks.report import Usage
from imgconv.errors import ImageMalformed
from imgconv.sources.gzip_members import open_gzip
from imgconv.sources.tar_archive import Archive, choose_member, members
from imgconv.sources.tar_sparse import layout_of


def check_raw_tar_gz(inspection: Inspection) -> Usage:
    """Check an archive; without its data, the header of the gzip only.

    Offsets of what is in the archive are those in the unpacked one. Raises what reading the
    file raises.
    """
    if not inspection.data:
        return check_raw_gz(inspection)
    with inspection.noting("stream", 0):
        try:
            archive = Archive(inspection.image, open_gzip(inspection.image))
        except ImageMalformed:
            return check_raw_gz(inspection)  # which goes on where opening stops
        inspection.decoded += 1
        _check_members(inspection, archive)
    return Usage()


def _check_members(inspection: Inspection, archive: Archive) -> None:
    with inspection.noting("archive", 0):
        for member in members(archive):
            with inspection.noting("member", member.at):
                layout_of(archive, member)
            name = member.name
            leads_out = posixpath.isabs(name) or ".." in name.split("/")
            text = f"a name that leads out of its folder, {name!a}"
            inspection.advise(not leads_out, "member-name", member.at, text)
        chosen = choose_member(archive)
        size = layout_of(archive, chosen).size
        inspection.require(size > 0, "disk-size", chosen.at, "holds no byte")
