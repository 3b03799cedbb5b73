"""The front of a file, as far as it was read ahead while the program was being loaded."""

import sys

import numpy as np

from imgconv.found import Found
from imgconv.ranges import Ranges, overlaps
from imgconv.readahead import GRANULE, ReadAhead
from imgconv.workers import Lock


class Prefix:
    """Answers for what was read ahead, and lets go of its memory behind that."""

    def __init__(self, ahead: ReadAhead | None):
        self._ahead = ahead
        self._reach = 0 if ahead is None else sys.maxsize  # known when the reading has ended
        self._found: Found | None = None
        self._lock = Lock()

    def find(self, extents: Ranges, granule: int) -> Found | None:
        """Return what was found in extents, None when not all of them were read."""
        if not len(extents) or int(extents.start[0]) >= self._reach:
            self._found = None
            return None
        found = self._taken()
        if found is None or granule != GRANULE or int(extents.stop[-1]) > self._reach:
            return None
        index, _, shared = overlaps(found.data, extents)
        where = found.where[index] + shared.start - found.data.start[index]
        return Found(shared, where, found.buffer)

    def _taken(self) -> Found | None:
        """End the reading and take over what it found."""
        with self._lock:
            if self._ahead is not None:
                self._reach, rows, memory = self._ahead.end()
                self._ahead = None
                start, stop, where = np.frombuffer(rows, dtype=np.int64).reshape(-1, 3).T.copy()
                self._found = Found(Ranges(start, stop), where, memory)
            return self._found

    def close(self) -> None:
        """End the reading; harmless when repeated."""
        self._taken()
        self._found = None
