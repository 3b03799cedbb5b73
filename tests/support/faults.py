"""Faults on order: what a loopback server does wrong, and when."""

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass

from support.loopback import Headers, Request


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request; the fields are in the order of their effect."""

    stall: float = 0.0  # seconds before anything else
    reset_after: int | None = None  # RST after that many bytes of the body
    status: int | None = None  # answered instead of being carried out
    code: str = "InternalError"
    ec: str = ""
    headers: Headers = ()
    unread: bool = False  # answered, and closed, without reading the body
    body: bytes | None = None  # instead of the XML; with no header of OSS, like a proxy's
    flipped: bool = False  # one bit of the body arrives damaged
    wrong_crc: bool = False  # the reply tells another CRC
    blank: bool = False  # the reply has neither a body nor headers of its own
    cut_reply: int | None = None  # only that many bytes of the reply's body are sent
    drop_reply: bool = False  # carried out, but RST instead of the reply


class Faults:
    """Faults in waiting; each in a queue is used once, `rule` is asked every time."""

    def __init__(self) -> None:
        self._queues: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._lock = threading.Lock()
        self.rule: Callable[[str, Request], Fault | None] = lambda operation, request: None

    def add(self, operation: str, *faults: Fault) -> None:
        self._queues[operation].extend(faults)

    def take(self, operation: str, request: Request) -> Fault:
        with self._lock:
            queue = self._queues[operation]
            if queue:
                return queue.popleft()
        return self.rule(operation, request) or Fault()  # may hold up this request, no other
