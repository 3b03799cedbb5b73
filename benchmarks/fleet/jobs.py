"""What imgconv makes of a disk: errands, parts, requests, layouts.

All of it is made by imgconv's own code, for disks that need not exist.
"""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from imgconv.fleet.coordinate import Shares, scan_errands, shared_out
from imgconv.fleet.errands import Address, SendErrand
from imgconv.formats import format_from_text
from imgconv.formats.base import Disk, PlannedWriter
from imgconv.identity import Identity
from imgconv.layout import Layout
from imgconv.objectstore import Upload
from imgconv.planning import Planning, outline
from imgconv.ranges import Ranges
from imgconv.sources.remote import Window
from imgconv.stores import ObjectUrl
from imgconv.stores.profiles import PROFILES
from imgconv.stores.s3 import S3
from imgconv.units import GiB, KiB, div_ceil
from imgconv.upload.cuts import plan_cuts
from imgconv.upload.handover import Handover, Place, places_of
from imgconv.upload.options import UploadOptions
from imgconv.upload.state import Held

LIMITS = PROFILES["aws"]
SHARES = Shares()
_GROUP = 4096  # extents at once, as from a file


class ImaginedDisk:
    """A disk of which only the extents are known; nobody reads it."""

    name = "/images/disk.raw"
    warnings: tuple[str, ...] = ()

    def __init__(self, size: int, data: Ranges):
        self.size, self.data = size, data
        self.identity = Identity("disk.raw, 1 TiB, 2026-01-01T00:00:00Z", 1_767_225_600)

    def extents(self) -> Iterator[Ranges]:
        for at in range(0, len(self.data), _GROUP):
            yield Ranges(self.data.start[at : at + _GROUP], self.data.stop[at : at + _GROUP])

    def read_into(self, offset: int, buffer: memoryview) -> None:
        raise NotImplementedError

    def verify(self) -> None:
        pass

    def close(self) -> None:
        pass


def dense(size: int) -> ImaginedDisk:
    return ImaginedDisk(size, Ranges.single(0, size))


def sparse(size: int) -> ImaginedDisk:
    """One GiB of each twenty is data."""
    return ImaginedDisk(size, Ranges.of((at, at + GiB) for at in range(0, size, 20 * GiB)))


def scattered(size: int) -> ImaginedDisk:
    """64 KiB of each 256 KiB are data: as bad as it gets."""
    starts = np.arange(0, size, 256 * KiB, dtype=np.int64)
    return ImaginedDisk(size, Ranges(starts, starts + 64 * KiB))


@dataclass(frozen=True)
class Job:
    """What imgconv makes of a disk: the errands to scan it, and those to send the output."""

    disk: ImaginedDisk
    layout: Layout
    places: tuple[Place, ...]
    part: int  # the length of one of data
    scans: tuple[int, ...]  # bytes to read, of each
    sends: tuple[int, ...]  # bytes to send, of each
    copies: int
    scan_pickle: int
    send_pickle: int

    @property
    def puts(self) -> int:
        """Requests that are charged as PUT: begin, parts, copies, one list, complete."""
        return len(self.places) + 3

    @property
    def gets(self) -> int:
        """Requests that are charged as GET if the disk is an object, too: it is read twice."""
        read = 2 * self.disk.data.total
        return div_ceil(read, Window().block)


@cache
def job(kind: str, size: int, name: str) -> Job:
    """Have imgconv cut up a disk, as `distribute` does."""
    disk = {"dense": dense, "sparse": sparse, "scattered": scattered}[kind](size)
    writer = _writer(disk, name)
    address = Address(
        location=disk.name,
        source_format=None,
        read=None,
        store=None,
        size=disk.size,
        identity=disk.identity,
    )
    errands = list(scan_errands(disk, address, writer, SHARES.scan))
    planning = Planning(_writer(disk, name))
    planning.place(disk.data.aligned(writer.unit, disk.size))
    layout = planning.finish()
    foreseen = outline(disk, _writer(disk, name))
    cuts = plan_cuts(
        LIMITS,
        head_size=writer.head_size,
        bound=foreseen.bound,
        part_size=None,
        zeros=foreseen.zeros,
    )
    places = tuple(places_of(cuts, layout.size))
    data = [place for place in places[1:] if not layout.is_zero(place.start, place.stop)]
    groups = list(shared_out(data, SHARES.send))
    return Job(
        disk=disk,
        layout=layout,
        places=places,
        part=max(place.length for place in data),
        scans=tuple(errand.extents.total for errand in errands),
        sends=tuple(sum(place.length for place in group) for group in groups),
        copies=len(places) - 1 - len(data),
        scan_pickle=max(pickled(errand) for errand in errands[:4]),
        send_pickle=max(pickled(_send(address, layout, g)) for g in groups[:4]),
    )


def pickled(value: object) -> int:
    """Return how many bytes it is on its way; by one protocol, whatever Python's own is."""
    return len(pickle.dumps(value, protocol=5))


def _writer(disk: ImaginedDisk, name: str) -> PlannedWriter:
    writer = format_from_text(name, "").writer(Disk(disk.size, disk.identity, f"disk.{name}"))
    assert isinstance(writer, PlannedWriter)
    return writer


def _send(address: Address, layout: Layout, places: tuple[Place, ...]) -> SendErrand:
    upload = Upload("images/disk", "u" * 64)
    return SendErrand(
        disk=address,
        url=ObjectUrl("s3", "exports", upload.key),
        store=S3(),
        handover=Handover(upload, Held(LIMITS, [], []), UploadOptions()),
        layout=layout.piece(places[0].start, places[-1].stop),
        places=places,
    )
