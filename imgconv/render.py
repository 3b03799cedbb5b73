"""A planned layout and its source, joined: any window of an output that was never written."""

from imgconv.layout import Layout
from imgconv.segments import Data, Meta, Zeros
from imgconv.sources.base import Source


def render(layout: Layout, source: Source, offset: int, buffer: memoryview) -> None:
    """Fill the buffer with the output's bytes from `offset` on.

    The window must lie inside the output. Safe from any number of threads.
    """
    for at, segment in layout.window(offset, offset + len(buffer)):
        place = buffer[at - offset : at - offset + segment.length]
        match segment:
            case Meta():
                place[:] = segment.render()
            case Data(start, _):
                source.read_into(start, place)
            case Zeros(length):
                place[:] = bytes(length)
