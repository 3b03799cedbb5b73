"""The two errands there are: to find the data in some extents, and to send some parts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from imgconv.batches import CAPACITY, Pace, batches
from imgconv.errors import SourceChanged
from imgconv.identity import Identity
from imgconv.layout import Layout
from imgconv.objects import opened_store
from imgconv.opening import open_location
from imgconv.pages import page_buffer
from imgconv.ranges import Ranges
from imgconv.render import render
from imgconv.sources.base import Source
from imgconv.sources.options import ReadOptions
from imgconv.sources.scanning import scanner
from imgconv.stores import ObjectUrl, Store
from imgconv.upload.buffers import PartBuffer
from imgconv.upload.handover import Handover, Place, Sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a disk is, and how to tell that it is the same one there as here."""

    location: str
    source_format: str | None
    read: ReadOptions | None
    store: Store | None
    size: int
    identity: Identity

    @contextmanager
    def opened(self) -> Iterator[Source]:
        """Open it; SourceChanged when it is another, or changes meanwhile."""
        disk, _, _ = open_location(
            self.location, self.source_format, self.read, self.store, cancelled=None
        )
        try:
            if (disk.size, disk.identity) != (self.size, self.identity):
                raise SourceChanged(
                    f"{disk.name}: is not the disk the conversion began with: "
                    f"{disk.identity.text}, not {self.identity.text}"
                )
            yield disk
            disk.verify()
        finally:
            disk.close()


@dataclass(frozen=True, slots=True)
class Scanned:
    """Runs of units that hold data, how many bytes of data were found, in how many."""

    runs: Ranges
    data: int
    covers: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScanErrand:
    """Find the units with data in some extents; `covers` bytes of guest are done then."""

    disk: Address
    extents: Ranges
    unit: int
    granule: int
    covers: int

    def run(self) -> Scanned:
        """Read and scan; SourceErrors."""
        pace = Pace(self.unit, 1)
        buffer = page_buffer(pace.most)
        runs, data = [], 0
        with self.disk.opened() as disk:
            scan = scanner(disk)
            extents = iter([self.extents])
            for batch in batches(extents, disk.size, self.unit, self.granule, pace):
                found = scan(batch.extents, self.granule, buffer).data
                pace.note(batch.extents, found)
                data += found.total
                runs.append(found.aligned(self.unit, disk.size))
        return Scanned(Ranges.concat(runs).merged(), data, self.covers)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SendErrand:
    """Render and send some parts; `layout` is the piece of it that they lie in."""

    disk: Address
    url: ObjectUrl
    store: Store | None
    handover: Handover
    layout: Layout
    places: tuple[Place, ...]

    def run(self) -> Sent:
        """Read, render, send; SourceErrors and StoreErrors."""
        with self.disk.opened() as disk, opened_store(self.url, self.store) as store:
            fill = partial(_fill, self.layout, disk, page_buffer(CAPACITY))
            return self.handover.send(store, self.places, fill)


def _fill(layout: Layout, disk: Source, buffer: memoryview, part: PartBuffer) -> None:
    for at in range(0, part.length, len(buffer)):
        length = min(len(buffer), part.length - at)
        start = part.start + at
        if layout.is_zero(start, start + length):
            part.zeros(at, length)
        else:
            render(layout, disk, start, buffer[:length])
            part.put(at, buffer[:length])
