"""Parts of an upload that somebody elsewhere sends: what is handed over, and handed back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from imgconv.objectstore import Part, PartStore, Upload
from imgconv.progress import Counters
from imgconv.upload.buffers import Blocks, PartBuffer
from imgconv.upload.client import Client
from imgconv.upload.cuts import Cuts
from imgconv.upload.options import UploadOptions
from imgconv.upload.sender import Origin, Sender
from imgconv.upload.session import Session
from imgconv.upload.state import Held, Meter


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part lies in the output; bytes."""

    number: int
    start: int
    length: int

    @property
    def stop(self) -> int:
        """The output offset at which it ends."""
        return self.start + self.length


def places_of(cuts: Cuts, size: int) -> Iterator[Place]:
    """Yield the parts of an output of `size` bytes, in order."""
    number = 1
    while (start := cuts.start(number)) < size:
        yield Place(number, start, min(cuts.length(number), size - start))
        number += 1


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of parts: what the store says of each, and where it came from."""

    parts: Sequence[Part]
    origins: Mapping[int, Origin]
    counters: Counters


@dataclass(frozen=True, slots=True, eq=False)
class Handover:
    """All that is needed to send some parts of an upload; can be pickled.

    `held` are those of them that the store may have already.
    """

    upload: Upload
    held: Held
    options: UploadOptions

    def send(
        self,
        store: PartStore,
        places: Sequence[Place],
        fill: Callable[[PartBuffer], None],
    ) -> Sent:
        """Have each part filled, and send it while the next one is; StoreErrors."""
        meter = Meter()
        options = replace(self.options, resume=False, journal=None, zero_copy="off")
        client = Client(
            store,
            options.backoff,
            concurrency=options.concurrency,
            cancelled=None,
            meter=meter,
        )
        session = Session(self.upload, "", self.held, None)
        sender = Sender(client, session, options, zero_length=0, meter=meter)
        blocks = Blocks(options.memory, sender.check)
        try:
            for place in places:
                part = PartBuffer(place.number, place.start, place.length, blocks)
                fill(part)
                sender.send(part)
            sender.drain()
            return Sent(tuple(sender.parts.values()), sender.origins, meter.counters)
        finally:
            sender.close()
