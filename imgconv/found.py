"""What reading found: the data of a stretch of guest, and where its bytes lie in memory."""

from dataclasses import dataclass

from imgconv.ranges import Column, Ranges


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Guest ranges that hold data, and where in `buffer` the bytes of each begin."""

    data: Ranges
    where: Column
    buffer: memoryview
