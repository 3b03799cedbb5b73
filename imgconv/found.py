"""What reading found: the data of a stretch of guest, and where its bytes lie in memory."""

from typing import NamedTuple

from imgconv.ranges import Column, Ranges


class Found(NamedTuple):
    """Guest ranges that hold data, and where in `buffer` the bytes of each begin."""

    data: Ranges
    where: Column
    buffer: memoryview
