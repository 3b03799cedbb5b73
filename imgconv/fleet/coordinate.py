"""The coordinator's part: cut the work into errands, and put the answers together."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeVar

from imgconv.batches import Pace, batches
from imgconv.errors import OptionError
from imgconv.fleet.dispatch import Dispatcher, Errand
from imgconv.fleet.errands import Address, ScanErrand, SendErrand
from imgconv.formats.base import PlannedWriter
from imgconv.layout import Layout
from imgconv.pipeline import granule_of
from imgconv.planning import Planning
from imgconv.sources.base import Source
from imgconv.stores import ObjectUrl, Store
from imgconv.tally import Tally
from imgconv.units import GiB, MiB
from imgconv.upload.handover import Place, Sent
from imgconv.upload.uploader import Uploader

Result = TypeVar("Result")

MAX_PARTS = 64  # in one errand; each costs a request or two however short it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How much work an errand is, in bytes: `scan` of extents to look through, `send` of
    output to make. A larger one costs less beside the work, a smaller one loses less
    when its worker dies."""

    scan: int = GiB
    send: int = 256 * MiB

    def __post_init__(self) -> None:
        for name, share in (("scan", self.scan), ("send", self.send)):
            if share < 1:
                raise OptionError(f"{name}={share}: must be positive")


def plan_elsewhere(
    source: Source,
    address: Address,
    writer: PlannedWriter,
    dispatcher: Dispatcher,
    *,
    share: int,
    tally: Tally,
) -> Layout:
    """Have the disk scanned by workers; return the layout its output will have."""
    tally.begin("scan", source.size)
    planning = Planning(writer)
    errands = scan_errands(source, address, writer, share)
    with closing(dispatcher.results(errands, _as_it_was)) as results:
        for found in _in_order(results):
            planning.place(found.runs)
            tally.advance(found.covers, data=found.data)
    return planning.finish()


def scan_errands(
    source: Source, address: Address, writer: PlannedWriter, share: int
) -> Iterator[ScanErrand]:
    """Cut the disk where a worker may begin: between units."""
    unit, granule = writer.unit, granule_of(writer)
    pace = Pace(unit, 1)
    pace.capacity = max(share, pace.least)
    for batch in batches(source.extents(), source.size, unit, granule, pace):
        yield ScanErrand(
            disk=address,
            extents=batch.extents,
            unit=unit,
            granule=granule,
            covers=batch.stop - batch.start,
        )


def _as_it_was(errand: Errand[Result]) -> Errand[Result]:
    return errand


def _in_order(numbered: Iterable[tuple[int, Result]]) -> Iterator[Result]:
    early: dict[int, Result] = {}
    wanted = 0
    for number, result in numbered:
        early[number] = result
        while wanted in early:
            yield early.pop(wanted)
            wanted += 1


def shared_out(places: Iterable[Place], share: int) -> Iterator[tuple[Place, ...]]:
    """Group parts into errands of about `share` bytes each."""
    group: list[Place] = []
    for place in places:
        group.append(place)
        if len(group) == MAX_PARTS or sum(p.length for p in group) >= share:
            yield tuple(group)
            group = []
    if group:
        yield tuple(group)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Delivery:
    """A planned output on its way to a store; the part with the head goes last."""

    layout: Layout
    address: Address
    url: ObjectUrl
    store: Store | None
    uploader: Uploader
    share: int

    def deliver(self, dispatcher: Dispatcher, tally: Tally) -> None:
        """Have all parts sent by workers; zeros are left to the store, if it can copy."""
        tally.begin("emit", self.layout.size)
        first, *others = self.uploader.places(self.layout.size)
        data = []
        for place in others:
            if self.uploader.copies_zeros and self.layout.is_zero(place.start, place.stop):
                self.uploader.send_zeros(place)
                tally.advance(place.length, written=place.length)
            else:
                data.append(place)
        self._send(map(self._errand, shared_out(data, self.share)), dispatcher, tally)
        self._send([self._errand((first,))], dispatcher, tally)

    def _errand(self, places: tuple[Place, ...]) -> SendErrand:
        return SendErrand(
            disk=self.address,
            url=self.url,
            store=self.store,
            handover=self.uploader.hand_over(_numbers(places)),
            layout=self.layout.piece(places[0].start, places[-1].stop),
            places=places,
        )

    def _again(self, errand: Errand[Sent]) -> SendErrand:
        """What was sent before the worker died need not be sent again."""
        assert isinstance(errand, SendErrand)
        numbers = _numbers(errand.places)
        return replace(errand, handover=self.uploader.hand_over(numbers, again=True))

    def _send(
        self, errands: Iterable[SendErrand], dispatcher: Dispatcher, tally: Tally
    ) -> None:
        with closing(dispatcher.results(errands, self._again)) as results:
            for _, sent in results:
                self.uploader.adopt(sent)
                length = sum(part.length for part in sent.parts)
                tally.advance(length, written=length)


def _numbers(places: Iterable[Place]) -> frozenset[int]:
    return frozenset(place.number for place in places)
