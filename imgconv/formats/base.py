"""What a format is: frozen options that make a writer, and the writer, a layout machine.

A writer is pure. It is told which units of the guest hold data, in ascending order,
and answers with segments; it never sees the data, a file or a clock. The stream it
describes is

    head (reserved, contents last) · begin · place, place, ... · finish

and depends only on the disk, the options and the sequence of units, never on how that
sequence was cut into calls, of which none cuts a `span` of an encoding writer. Lengths and
offsets are in bytes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple, Protocol, TypeAlias

from imgconv.identity import Identity
from imgconv.ranges import Column, Ranges
from imgconv.segments import Segments


class Disk(NamedTuple):
    """What a writer knows of its job.

    `size` is the virtual size, a multiple of 512 and not 0; `output_name` the base name
    of the output, which one format records.
    """

    size: int
    identity: Identity
    output_name: str


class BaseWriter(ABC):
    """The part of the contract that all writers share.

    `unit` is the allocation unit; `head_size` is fixed from the start, while `head` is
    asked for after `finish`. `size` is the virtual size the output declares, which may
    be larger than the disk's (never smaller).
    """

    unit: int
    head_size: int
    size: int

    def begin(self) -> Iterator[Segments]:
        """Return what follows the head and is known before anything is placed."""
        return iter(())

    @abstractmethod
    def finish(self) -> Iterator[Segments]:
        """Return what follows the last placed unit, in pieces of bounded size."""

    @abstractmethod
    def head(self) -> Iterator[Segments]:
        """Return the head, `head_size` bytes in pieces of bounded size; after `finish`."""


class PlannedWriter(BaseWriter):
    """A writer whose layout follows from the units alone."""

    @abstractmethod
    def place(self, runs: Ranges) -> Segments:
        """Append runs of units that hold data.

        Runs begin at multiples of `unit`, end at one or at the end of the disk, and lie
        after everything placed before.
        """


class EncodingWriter(BaseWriter):
    """A writer whose units are encoded one by one, to lengths known only then."""

    @property
    def span(self) -> int:
        """Guest bytes, a multiple of `unit`: the units between two multiples of it are placed
        in one call, in any order the writer likes."""
        return self.unit

    @abstractmethod
    def encode(self, start: int, content: memoryview) -> bytes | memoryview:
        """Return what is stored for the unit at `start`; called from many threads at once.

        Pure: `content` is the unit's bytes, short only at the end of the disk.
        """

    def check(self, content: memoryview) -> int:
        """Return what `place` must know of a unit beside its length; as `encode` is."""
        return 0

    @abstractmethod
    def bound(self, count: int) -> int:
        """Return the most bytes the output can have if `count` units hold data."""

    @abstractmethod
    def place(self, units: Column, lengths: Column, checks: Column) -> Segments:
        """Append encoded units, given their guest offsets, stored lengths and checks.

        Data segments refer to the payload in which the units lie back to back.
        """


Writer: TypeAlias = PlannedWriter | EncodingWriter


class Format(Protocol):
    """The options of one output format; the object that `options=` takes."""

    name: ClassVar[str]

    @property
    def max_size(self) -> int:
        """The largest virtual size these options can describe, in bytes."""
        ...

    def writer(self, disk: Disk) -> Writer:
        """Return a fresh writer for one disk; OptionError when the two do not fit."""
        ...
