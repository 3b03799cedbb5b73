"""How exports grow to a fleet: the tables of docs/fleet.md, from a small simulation.

    python benchmarks/fleet_simulation.py              # prints the tables
    python benchmarks/fleet_simulation.py --write      # puts them into docs/fleet.md
    python benchmarks/fleet_simulation.py --calibrate /dev/shm  # real runs beside it

Errands, parts, requests and layouts are those of imgconv itself, made by its own code for
disks that need not exist. Everything else is an assumption, has a name in `Fleet` and
`Prices`, and can be replaced: fleet_simulation.py --set worker_in=400e6 --set store=2.5e9.
The same numbers give the same tables, on any machine.
"""

import argparse
import heapq
import pickle
import random
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass, fields, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np

import imgconv
from imgconv.fleet.coordinate import MAX_PARTS, Shares, scan_errands, shared_out
from imgconv.fleet.dispatch import IN_FLIGHT
from imgconv.fleet.errands import Address, SendErrand
from imgconv.formats import format_from_text
from imgconv.formats.base import Disk, PlannedWriter
from imgconv.identity import Identity
from imgconv.layout import Layout
from imgconv.objectstore import Upload
from imgconv.pipeline import Planning, outline
from imgconv.ranges import Ranges
from imgconv.sources.remote import Window
from imgconv.stores import ObjectUrl
from imgconv.stores.profiles import PROFILES
from imgconv.stores.s3 import S3
from imgconv.units import GiB, KiB, MiB, TiB, div_ceil
from imgconv.upload.cuts import plan_cuts
from imgconv.upload.handover import Handover, Place, places_of
from imgconv.upload.options import UploadOptions
from imgconv.upload.state import Held

DOCUMENT = Path(__file__).parent.parent / "docs" / "fleet.md"
BEGIN, END = "<!-- fleet_simulation -->\n", "<!-- /fleet_simulation -->\n"
LIMITS = PROFILES["aws"]
SHARES = Shares()
FORMATS = ("raw", "qcow2", "vhdx")
WORKERS = (1, 4, 16, 64, 256, 1024, 4096)
GBIT = 1e9 / 8  # bytes a second
_REAL = GiB  # of a disk, for a real run
_GROUP = 4096  # extents at once, as from a file


@dataclass(frozen=True)
class Fleet:
    """What the machines and the services can do: assumptions. Bytes, seconds, bytes/s.

    A worker reads with `worker_in` at most and sends with `worker_out`, `connection` for each
    of its requests at once; it spends `scan_cpu` and `send_cpu` seconds of one processor on
    a GiB. All workers together read at most `source`, and send at most `store`. `opening` is
    what opening source and store costs an errand, `coordinator` what the coordinator spends
    on one, `finishing` the last request. `copy` is how long the store takes to copy a part of
    zeros. A lost worker is missed after `notice` and replaced after `replacement`.
    """

    workers: int = 16
    worker_in: float = 0.9 * GBIT
    worker_out: float = 0.9 * GBIT
    connection: float = 85e6
    scan_cpu: float = 0.3
    send_cpu: float = 1.0
    source: float = 100 * GBIT
    store: float = 20 * GBIT
    opening: float = 0.2
    coordinator: float = 0.002
    finishing: float = 10.0
    copy: float = 1.0
    lifetime: float = 0.0  # mean hours until a worker is lost; 0: never
    notice: float = 60.0
    replacement: float = 120.0


@dataclass(frozen=True)
class Prices:
    """US dollars: of 1,000 requests, and of an hour of one worker."""

    put: float = 0.005
    get: float = 0.0004
    worker_hour: float = 0.0816


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


@dataclass
class Done:
    """How a pass went: seconds it took, workers that were lost, bytes done twice."""

    seconds: float = 0.0
    reread: float = 0.0
    resent: float = 0.0
    losses: int = 0


@dataclass(frozen=True)
class Pace:
    """Seconds that a byte takes one of `count` workers: alone, and all of them together."""

    alone: float
    together: float

    def of(self, count: int) -> float:
        return max(self.alone, count * self.together)


def scan_pace(fleet: Fleet) -> Pace:
    alone = max(1 / fleet.worker_in, fleet.scan_cpu / GiB)
    return Pace(alone, 1 / fleet.source)


def send_pace(fleet: Fleet, part: int, memory: int | None = None) -> Pace:
    """Reading and sending overlap as far as there is memory for the next part meanwhile."""
    options = UploadOptions(memory=memory or UploadOptions().memory)
    read = 1 / fleet.worker_in
    sent = 1 / min(fleet.worker_out, options.concurrency * fleet.connection)
    ahead = min(max(options.memory - part, 0) / part, 1.0)
    alone = max(read, sent) + (1 - ahead) * min(read, sent)
    alone = max(alone, fleet.send_cpu / GiB)
    return Pace(alone, max(1 / fleet.source, 1 / fleet.store))


class Pass:
    """Errands of one kind, handed out one after the other, done by workers that share what
    there is evenly. Between two events everybody goes on at one pace, so the clock can jump
    from event to event; `_work` counts the bytes each of them has moved so far.
    """

    def __init__(self, fleet: Fleet, pace: Pace, part: int, chance: random.Random):
        self._fleet, self._pace, self._part, self._chance = fleet, pace, part, chance
        self._now = self._work = 0.0
        self._events: list[tuple[float, int, str, int]] = []
        self._moving: list[tuple[float, int]] = []  # (work at which it ends, worker)
        self._errand: dict[int, tuple[float, float]] = {}  # worker: its bytes, work at start
        self._ready: deque[float] = deque()
        self._count = 0
        self._done = Done()

    def run(self, errands: Sequence[int]) -> Done:
        waiting = deque(errands)
        left, handed_at = len(waiting), 0.0
        idle = list(range(min(self._fleet.workers, IN_FLIGHT)))
        opening: dict[int, float] = {}
        alive = set(idle)
        for worker in idle:
            self._expect_loss(worker)
        in_flight = 0
        while left:
            while waiting and in_flight < IN_FLIGHT:
                handed_at = max(handed_at, self._now) + self._fleet.coordinator
                self._at(handed_at, "handed", waiting.popleft())
                in_flight += 1
            while idle and self._ready:
                worker = idle.pop()
                opening[worker] = self._ready.popleft()
                self._at(self._now + self._fleet.opening, "opened", worker)
            kind, subject = self._advance()
            if kind == "handed":
                self._ready.append(subject)
            elif kind == "opened" and subject in opening:
                self._begin(subject, opening.pop(subject))
            elif kind == "ended":
                del self._errand[subject]
                idle.append(subject)
                left, in_flight = left - 1, in_flight - 1
            elif kind == "lost" and subject in alive:
                self._done.losses += 1
                alive.remove(subject)
                if subject in idle:
                    idle.remove(subject)
                elif (again := opening.pop(subject, None)) is not None:
                    self._at(self._now + self._fleet.notice, "handed", int(again))
                else:
                    self._at(self._now + self._fleet.notice, "handed", self._wasted(subject))
                self._at(self._now + self._fleet.replacement, "replaced", subject)
            elif kind == "replaced":
                alive.add(subject)
                idle.append(subject)
                self._expect_loss(subject)
        self._done.seconds = self._now
        return self._done

    def _at(self, when: float, kind: str, subject: int) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, kind, subject))

    def _expect_loss(self, worker: int) -> None:
        if self._fleet.lifetime:
            life = self._chance.expovariate(1 / (self._fleet.lifetime * 3600))
            self._at(self._now + life, "lost", worker)

    def _begin(self, worker: int, length: float) -> None:
        self._errand[worker] = length, self._work
        heapq.heappush(self._moving, (self._work + length, worker))

    def _wasted(self, worker: int) -> int:
        """Take an errand from a dead worker; its whole parts are in the store already."""
        length, start = self._errand.pop(worker)
        self._moving = [entry for entry in self._moving if entry[1] != worker]
        heapq.heapify(self._moving)
        moved = self._work - start
        self._done.reread += moved
        self._done.resent += moved % self._part
        return int(length)

    def _advance(self) -> tuple[str, int]:
        """Go on to what happens next, and say what that is."""
        pace = self._pace.of(len(self._moving)) if self._moving else 0.0
        end = self._now + (self._moving[0][0] - self._work) * pace if self._moving else None
        if end is None or (self._events and self._events[0][0] < end):
            when, _, kind, subject = heapq.heappop(self._events)
        else:
            when, kind, subject = end, "ended", heapq.heappop(self._moving)[1]
        busy = len(self._errand)
        if busy:
            self._work += (when - self._now) / self._pace.of(busy)
        self._now = when
        return kind, subject


def simulate(fleet: Fleet, work: Job, memory: int | None = None) -> tuple[Done, Done, float]:
    """Scan, then send: how both went, and how long all of it took."""
    chance = random.Random(1)
    scan = Pass(fleet, scan_pace(fleet), SHARES.scan, chance).run(work.scans)
    scan.resent = 0.0
    pace = send_pace(fleet, work.part, memory)
    send = Pass(fleet, pace, work.part, chance).run(work.sends)
    copying = div_ceil(work.copies, UploadOptions().concurrency) * fleet.copy
    head = fleet.opening + work.places[0].length * pace.alone
    total = scan.seconds + max(send.seconds, copying) + head + fleet.finishing
    return scan, send, total


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f}" if seconds >= 600 else f"{seconds / 60:.1f}"


def table(head: str, rows: Sequence[Sequence[str]]) -> str:
    columns = head.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def errands_table() -> str:
    rows = []
    for kind, name in (
        *(("dense", name) for name in FORMATS),
        ("scattered", "qcow2"),
        ("sparse", "raw"),
        ("sparse", "qcow2"),
    ):
        work = job(kind, TiB, name)
        rows.append(
            (
                f"{kind}, {name}",
                f"{work.layout.size / GiB:,.0f} GiB",
                f"{work.part / MiB:.0f} MiB",
                f"{len(work.places):,}",
                f"{work.copies:,}",
                f"{len(work.scans):,}",
                f"{len(work.sends):,}",
                f"{div_ceil(work.scan_pickle, KiB):,} KiB",
                f"{div_ceil(work.send_pickle, KiB):,} KiB",
                f"{div_ceil(pickled(work.layout), MiB):,} MiB",
            )
        )
    head = "1 TiB | output | part | parts | of zeros | scan errands | send errands"
    return table(f"{head} | a scan errand | a send errand | layout", rows)


STORES = {
    "S3, no limit known": {"source": float("inf"), "store": float("inf")},
    "OSS in Hangzhou": {"source": 100 * GBIT, "store": 20 * GBIT},
    "OSS, elsewhere": {"source": 5 * GBIT, "store": 5 * GBIT},
    "disk on one file server of 10 Gbit/s": {"source": 10 * GBIT, "store": 20 * GBIT},
}


def workers_table(fleet: Fleet) -> str:
    work = job("dense", TiB, "qcow2")
    rows = []
    for workers in WORKERS:
        row = [f"{workers:,}"]
        for changes in STORES.values():
            _, _, seconds = simulate(replace(fleet, workers=workers, **changes), work)
            row.append(f"{minutes(seconds)} min")
        rows.append(row)
    return table(" | ".join(("workers", *STORES)), rows)


def disks_table(fleet: Fleet) -> str:
    rows = []
    for size in (TiB // 8, TiB, 8 * TiB, 32 * TiB):
        work = job("dense", size, "qcow2")
        scan, send, total = simulate(fleet, work)
        _, ample, _ = simulate(fleet, work, memory=2 * work.part)
        rows.append(
            (
                f"{size / TiB:g} TiB",
                f"{work.part / MiB:,.0f} MiB",
                f"{len(work.scans) + len(work.sends) + 1:,}",
                f"{minutes(scan.seconds)} min",
                f"{minutes(send.seconds)} min",
                f"{max(UploadOptions().memory, work.part) / MiB:,.0f} MiB",
                f"{minutes(ample.seconds)} min with {2 * work.part / MiB:,.0f} MiB",
                f"{minutes(total)} min",
            )
        )
    head = (
        "disk, all data | a part | errands | scanning | sending | memory for parts of a worker"
    )
    return table(f"{head} | sending with more memory | all of it", rows)


def limits_table(fleet: Fleet) -> str:
    work = job("dense", TiB, "qcow2")
    hangzhou = replace(fleet, **STORES["OSS in Hangzhou"])
    scan, send = scan_pace(hangzhou), send_pace(hangzhou, work.part)
    requests = hangzhou.store / work.part
    handed = 1 / fleet.coordinator
    raw = job("sparse", TiB, "raw")
    copying = div_ceil(raw.copies, UploadOptions().concurrency) * fleet.copy
    rows = [
        ("sending: the store's bandwidth", "20 Gbit/s", f"{crowd(send):,} workers"),
        ("scanning: the source's bandwidth", "100 Gbit/s", f"{crowd(scan):,} workers"),
        ("errands under way of a disk", f"{IN_FLIGHT:,}", f"{IN_FLIGHT:,} workers"),
        (
            "errands a second from the coordinator",
            f"{handed:,.0f}",
            f"{handed * min(work.sends) / GiB:,.0f} GiB/s sent, "
            f"{handed * SHARES.scan / GiB:,.0f} GiB/s scanned",
        ),
        (
            "requests a second, of one object",
            "3,500 (S3, a prefix)",
            f"{requests:.0f} of them at 20 Gbit/s",
        ),
        (
            "parts of an upload",
            f"{LIMITS.max_parts:,}",
            f"{LIMITS.max_parts * LIMITS.max_part / TiB:.1f} TiB, in parts of 5 GiB",
        ),
        (
            "parts in an errand",
            f"{MAX_PARTS}",
            f"of less than {SHARES.send // MAX_PARTS / MiB:.0f} MiB",
        ),
        (
            "copies of zeros at once (raw)",
            f"{UploadOptions().concurrency}",
            f"{minutes(copying)} min for the {raw.copies:,} of a sparse disk",
        ),
    ]
    return table("limit | value | reached at", rows)


def crowd(pace: Pace) -> int:
    """How many workers it takes until they hold one another up."""
    return div_ceil(int(1e15 * pace.alone), int(1e15 * pace.together))


def cost_table(fleet: Fleet, prices: Prices) -> str:
    rows = []
    fleet = replace(fleet, **STORES["S3, no limit known"])
    for kind, name in (("dense", "qcow2"), ("sparse", "qcow2"), ("sparse", "raw")):
        work = job(kind, TiB, name)
        for workers in (1, 16, 256):
            _, _, seconds = simulate(replace(fleet, workers=workers), work)
            puts, gets = work.puts * prices.put / 1000, work.gets * prices.get / 1000
            hired = workers * seconds / 3600 * prices.worker_hour
            rows.append(
                (
                    f"{kind}, {name}",
                    f"{workers}",
                    f"{minutes(seconds)} min",
                    f"{work.puts:,} for ${puts:.2f}",
                    f"{work.gets:,} for ${gets:.2f}",
                    f"${hired:.2f}",
                    f"${puts + gets + hired:.2f}",
                )
            )
    return table("1 TiB | workers | time | PUT | GET | workers' hire | all of it", rows)


def losses_table(fleet: Fleet) -> str:
    work = job("dense", 8 * TiB, "qcow2")
    rows = []
    for lifetime in (0.0, 24.0, 4.0, 1.0):
        scan, send, seconds = simulate(replace(fleet, workers=64, lifetime=lifetime), work)
        rows.append(
            (
                f"{lifetime:g} h" if lifetime else "for ever",
                f"{scan.losses + send.losses}",
                f"{minutes(seconds)} min",
                f"{(scan.reread + send.reread) / GiB:.1f} GiB",
                f"{send.resent / GiB:.1f} GiB",
                f"{100 * (scan.reread + send.reread) / (2 * 8 * TiB):.2f} %",
            )
        )
    head = "a worker lives | lost | time | read once more | sent once more"
    return table(f"{head} | of all that is read", rows)


def report(fleet: Fleet, prices: Prices) -> str:
    titles = {
        "Errands and their pickled sizes": errands_table(),
        "Workers: a dense disk of 1 TiB to qcow2": workers_table(fleet),
        "Disks to qcow2, by 64 workers, to S3": disks_table(
            replace(fleet, workers=64, **STORES["S3, no limit known"])
        ),
        "Limits, and where a dense disk of 1 TiB meets them": limits_table(fleet),
        "Cost of 1 TiB, from S3 to S3": cost_table(fleet, prices),
        "Losses: a dense disk of 8 TiB to qcow2, by 64 workers, to S3": losses_table(
            replace(fleet, **STORES["S3, no limit known"])
        ),
    }
    return "\n".join(f"**{title}.**\n\n{text}" for title, text in titles.items())


def calibrate(folder: Path) -> str:
    """Distribute a real disk over one process, and see what the model makes of two.

    What a byte costs one worker in each pass is measured; that of two is the model's word.
    Where they share a machine they hold one another up, of which the model knows nothing.
    """
    rows = []
    with tempfile.TemporaryDirectory(dir=folder, prefix="imgconv-fleet-") as place:
        source = Path(place) / "disk.raw"
        chance = random.Random(1)
        with open(source, "wb") as file:
            for _ in range(_REAL // MiB):
                file.write(chance.randbytes(MiB))
        alone = _measured(source, 1)
        for workers in (1, 2):
            scan, send = alone if workers == 1 else _measured(source, workers)
            modelled = []
            for seconds, share in zip(
                alone, (SHARES.scan // 16, SHARES.send // 4), strict=True
            ):
                errands = [share] * (_REAL // share)
                fleet = Fleet(workers=workers, opening=0, coordinator=0)
                pace = Pace(seconds / _REAL, 0)
                modelled.append(Pass(fleet, pace, share, chance).run(errands).seconds)
            rows.append(
                (
                    f"{workers}",
                    *(f"{scan:.1f} s", f"{modelled[0]:.1f} s"),
                    *(f"{send:.1f} s", f"{modelled[1]:.1f} s"),
                )
            )
    head = "processes | scanning 1 GiB | in the model | sending | in the model"
    return table(head, rows)


def _measured(source: Path, workers: int) -> tuple[float, float]:
    """Seconds of scanning, and of sending into a folder, until the last part is there."""
    target = source.with_name("out.raw")
    began: dict[str, float] = {}
    ended = 0.0

    def watch(now: imgconv.Progress) -> None:
        nonlocal ended
        ended = time.monotonic()
        began.setdefault(now.phase, ended)

    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    with pool:
        wait([pool.submit(time.sleep, 1) for _ in range(workers)])  # until all are there
        imgconv.distribute(
            source,
            f"file://{target}",
            pool,
            options="raw",
            shares=Shares(scan=SHARES.scan // 16, send=SHARES.send // 4),
            progress=watch,
        )
    target.unlink()
    return began["emit"] - began["scan"], ended - began["emit"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--write", action="store_true", help="put the tables into docs/fleet.md"
    )
    parser.add_argument(
        "--calibrate", metavar="FOLDER", type=Path, help="2 GiB are needed there"
    )
    parser.add_argument(
        "--set",
        metavar="NAME=NUMBER",
        action="append",
        default=[],
        dest="changes",
        help="another assumption, a field of Fleet or of Prices",
    )
    arguments = parser.parse_args()
    if arguments.calibrate is not None:
        print(calibrate(arguments.calibrate))
        return
    fleet, prices = _assumed(arguments.changes)
    tables = report(fleet, prices)
    if arguments.write:
        text = DOCUMENT.read_text()
        before, rest = text.split(BEGIN)
        DOCUMENT.write_text(f"{before}{BEGIN}{tables}{END}{rest.split(END)[1]}")
    else:
        print(tables, end="")


def _assumed(changes: Sequence[str]) -> tuple[Fleet, Prices]:
    fleet, prices = Fleet(), Prices()
    for name, _, number in (change.partition("=") for change in changes):
        if name in {field.name for field in fields(Fleet)}:
            kind = type(getattr(fleet, name))
            fleet = replace(fleet, **{name: kind(float(number))})
        elif name in {field.name for field in fields(Prices)}:
            prices = replace(prices, **{name: float(number)})
        else:
            raise SystemExit(f"--set {name}: there is no such assumption")
    return fleet, prices


if __name__ == "__main__":
    main()
