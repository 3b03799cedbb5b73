"""Encoding the units of a batch for formats that store them compressed."""

from typing import NamedTuple

import numpy as np

from imgconv.formats.base import EncodingWriter
from imgconv.found import Found
from imgconv.ranges import Column, Ranges
from imgconv.workers import Room


class Encoded(NamedTuple):
    """Units as they are stored, back to back: guest offset, stored length, check of each."""

    units: Column
    lengths: Column
    checks: Column
    payload: Found


def encode(writer: EncodingWriter, found: Found, room: Room) -> Encoded:
    """Encode every unit that was found to hold data; safe from any number of threads.

    What is stored lies in the thread's room.
    """
    stored, units, checks = [], [], []
    for (start, stop), where in zip(found.data, found.where.tolist(), strict=True):
        for unit in range(start, stop, writer.unit):
            low = where + unit - start
            high = low + min(writer.unit, stop - unit)
            content = found.buffer[low:high]
            stored.append(writer.encode(unit, content))
            checks.append(writer.check(content))
            units.append(unit)
    lengths = [len(piece) for piece in stored]
    payload, at = room.of(sum(lengths)), 0
    for piece, length in zip(stored, lengths, strict=True):
        payload[at : at + length] = piece
        at += length
    return Encoded(
        np.array(units, dtype=np.int64),
        np.array(lengths, dtype=np.int64),
        np.array(checks, dtype=np.int64),
        # Data segments refer to the payload, so it is found where it lies.
        Found(Ranges.single(0, len(payload)), np.zeros(1, dtype=np.int64), payload),
    )
