"""Workers, a source and a store that they share, and how long they take for a job.

What a machine or a service can do is an assumption, and has a name in `Fleet` or `Prices`.
"""

import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from fleet.jobs import SHARES, Job
from imgconv.fleet.dispatch import IN_FLIGHT
from imgconv.units import GiB, div_ceil
from imgconv.upload.options import UploadOptions

GBIT = 1e9 / 8  # bytes a second


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
