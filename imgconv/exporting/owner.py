"""Who works on a task, and whether that process is still there.

A process on this machine is known by its id and the time it started, so that one that was
killed is missed at once, and another that got its id is not taken for it. Of one that we
cannot see (in another container) only its lease tells.
"""

import os
from functools import cache

LEASE_SECONDS = 60.0


def our_mark() -> str:
    """Return what says that somebody in this process works on a task; never twice the same."""
    pid = os.getpid()
    return f"{_world()} {pid} {_started(pid)} {os.urandom(8).hex()}"


def is_alive(mark: str, lease: float, now: float) -> bool:
    """Say whether the worker with a mark is there; `lease` and `now` in seconds since 1970."""
    world, pid, started, *_ = (*mark.split(" "), "", "", "")
    if world != _world():
        return lease > now
    return _started(int(pid)) == started


def is_ours(mark: str) -> bool:
    """Say whether a mark was made in this process."""
    return mark.split(" ")[:3] == our_mark().split(" ")[:3]


@cache
def _world() -> str:
    """Return what has the same process ids: this boot's, in this namespace."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    return f"{boot}/{os.readlink('/proc/self/ns/pid')}"


def _started(pid: int) -> str:
    """Return when a process started, in ticks since boot; empty when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            words = file.read().rpartition(b") ")[2].split()
    except OSError:
        return ""
    gone = words[0] in (b"Z", b"X")  # killed, and not yet waited for
    return "" if gone else words[19].decode()
