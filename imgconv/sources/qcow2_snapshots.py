"""The table of internal snapshots of a QCOW2 image (its specification, "Snapshots")."""

from dataclasses import dataclass

from imgconv.errors import ImageUnsupported
from imgconv.ondisk import qcow2 as ondisk
from imgconv.ondisk.qcow2_snapshots import SNAPSHOT_EXTRA, SnapshotHeader
from imgconv.sources.checked import ImageFile
from imgconv.units import MiB, round_up

MAX_SNAPSHOTS = 65536
MAX_EXTRA = 1024
MAX_TABLE = 64 * MiB


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state of the disk: its ids as the image has them, and where its L1 table is."""

    id: str
    name: str
    at: int  # of its entry in the file
    l1_table_offset: int
    l1_size: int
    disk_size: int  # bytes
    date: int  # seconds since 1970
    vm_state_size: int  # bytes


def read_snapshots(image: ImageFile, header: ondisk.HeaderV2) -> list[Snapshot]:
    """Return all snapshots; raises ImageMalformed."""
    image.check(header.nb_snapshots <= MAX_SNAPSHOTS, 60, "too many snapshots")
    found, at, head = list[Snapshot](), header.snapshots_offset, SnapshotHeader
    for _ in range(header.nb_snapshots):
        front = head.unpack(image.read(at, head.LAYOUT.size, "a snapshot"))
        image.check(front.extra_size <= MAX_EXTRA, at + 36, f"{front.extra_size} extra bytes")
        length = front.extra_size + front.id_size + front.name_size
        rest = image.read(at + head.LAYOUT.size, length, "a snapshot")
        memory, size, ids = front.vm_state_size, header.size, rest[front.extra_size :]
        if front.extra_size >= SNAPSHOT_EXTRA.size:
            memory, size = SNAPSHOT_EXTRA.unpack_from(rest)
        found.append(
            Snapshot(
                ids[: front.id_size].decode(errors="surrogateescape"),
                ids[front.id_size :].decode(errors="surrogateescape"),
                at,
                front.l1_table_offset,
                front.l1_size,
                size,
                front.date_seconds,
                memory,
            )
        )
        at += round_up(head.LAYOUT.size + length, 8)
        small = at - header.snapshots_offset <= MAX_TABLE
        image.check(small, 60, f"a snapshot table of more than {MAX_TABLE} bytes")
    return found


def choose_snapshot(image: ImageFile, header: ondisk.HeaderV2, wanted: str) -> Snapshot:
    """Return the snapshot of that id or else of that name.

    Raises ImageUnsupported when there is none, or several of the name.
    """
    snapshots = read_snapshots(image, header)
    chosen = [found for found in snapshots if found.id == wanted]
    chosen = chosen or [found for found in snapshots if found.name == wanted]
    if len(chosen) != 1:
        number = "no snapshot" if not chosen else f"{len(chosen)} snapshots"
        raise ImageUnsupported(f"{image.file.name}: has {number} called {wanted!a}")
    return chosen[0]
