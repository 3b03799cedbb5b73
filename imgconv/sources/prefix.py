"""The front of a file, as far as it was read ahead while the program was being loaded."""

import sys

import numpy as np

from imgconv.found import Found
from imgconv.ranges import Pieces, Ranges, overlaps
from imgconv.readahead import GRANULE, ReadAhead
from imgconv.workers import Lock


class Prefix:
    """Answers for what was read ahead, and lets go of its memory behind that."""

    def __init__(self, ahead: ReadAhead | None):
        self._ahead = ahead
        self._reach = sys.maxsize  # until the reading has ended
        self._found: Found | None = None
        self._passed = ahead is None
        self._end = 0 if ahead is None else ahead.size
        self._lock = Lock()

    def find(self, pieces: Pieces, extents: Ranges, granule: int) -> Found | None:
        """Return what was found in extents of a disk of which pieces are in the file, None
        when not all of them were read."""
        if self._passed:
            return None
        piece, _, wanted = overlaps(pieces.guest, extents)
        shift = (pieces.where - pieces.guest.start)[piece]
        start, stop = wanted.start + shift, wanted.stop + shift
        if not len(start):
            return None
        if int(start.min()) >= self._reach:
            self._passed, self._found = True, None
            return None
        found = self._taken()
        # A granule that is not all of this disk may hold data of something else.
        ends = wanted.stop[stop < self._end]
        whole = not any((edges % GRANULE).any() for edges in (start, wanted.start, ends))
        if found is None or granule != GRANULE or not whole or int(stop.max()) > self._reach:
            return None
        order = start.argsort()
        index, row, shared = overlaps(found.data, Ranges(start[order], stop[order]))
        where = found.where[index] + shared.start - found.data.start[index]
        back = shift[order][row]
        order = (shared.start - back).argsort()
        data = Ranges((shared.start - back)[order], (shared.stop - back)[order])
        return Found(data, where[order], found.buffer)

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
        self._passed, self._found = True, None
