"""Sources and sinks in memory, and the engine's drivers run over them."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from imgconv.errors import ReadFailed, SourceTruncated
from imgconv.formats.base import Disk, Format, PlannedWriter, Writer
from imgconv.identity import Identity
from imgconv.layout import Layout
from imgconv.pipeline import stream
from imgconv.planning import emit, plan
from imgconv.ranges import Ranges
from imgconv.sinks.multipart import MultipartSink
from imgconv.sources.base import Source
from imgconv.stores.local import Local
from imgconv.stretch import Stretch
from imgconv.tally import Tally
from imgconv.upload.options import UploadOptions
from imgconv.workers import Stop


class MemorySource:
    """A disk in memory; its extents are told by the test, in groups."""

    warnings = ()
    identity = Identity("memory")

    def __init__(
        self, content: bytes, groups: Sequence[Sequence[tuple[int, int]]] | None = None
    ):
        self.name, self.size, self.content = "memory", len(content), content
        self._groups = groups if groups is not None else [[(0, len(content))]]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        assert offset + len(buffer) <= self.size
        buffer[:] = self.content[offset : offset + len(buffer)]

    def extents(self) -> Iterator[Ranges]:
        for group in self._groups:
            yield Ranges.of(group)

    def verify(self) -> None: ...

    def close(self) -> None: ...


class FaultySource(MemorySource):
    """Fails at one offset: "EIO" raises what the system would, "short" ends the disk there.

    A real device cannot be made to fail at a chosen byte on every machine.
    """

    def __init__(self, content: bytes, fault: str, at: int):
        super().__init__(content)
        self._fault, self._at = fault, at

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if offset <= self._at < offset + len(buffer):
            if self._fault == "EIO":
                raise ReadFailed(self.name, self._at, os.strerror(errno.EIO))
            raise SourceTruncated(self.name, self._at, self.size)
        super().read_into(offset, buffer)


class MemorySink:
    """Keeps everything and insists that each byte comes exactly once."""

    parallel = True
    late_head = True

    def __init__(self) -> None:
        self.given: list[tuple[int, bytes]] = []
        self.size: int | None = None

    def put(self, stretch: Stretch) -> None:
        for offset, length, views in stretch:
            self.given.append((offset, b"".join(views) if views else bytes(length)))

    def prepare(self, size: int) -> None: ...

    def commit(self, size: int) -> None:
        self.size = size

    def abort(self) -> None:
        self.given.clear()

    def content(self) -> bytes:
        at, parts = 0, []
        for offset, part in sorted(self.given, key=lambda item: item[0]):
            assert offset == at, f"gap or overlap at {at}: next piece is at {offset}"
            parts.append(part)
            at += len(part)
        assert at == self.size
        return b"".join(parts)


def writer_for(source: Source, options: Format, name: str = "disk") -> Writer:
    return options.writer(Disk(source.size, Identity("test"), name))


def one_pass(source: Source, options: Format, threads: int = 2) -> bytes:
    sink, tally = MemorySink(), Tally()
    writer = writer_for(source, options)
    sink.commit(stream(source, writer, sink, threads=threads, stop=Stop(), tally=tally))
    return sink.content()


def uploaded(source: Source, options: Format, threads: int = 2) -> bytes:
    """The object that many small parts make."""
    writer, name = writer_for(source, options), "object"
    with TemporaryDirectory(dir="/dev/shm") as folder, closing(Local().open(folder)) as store:
        small = UploadOptions(part_size=40_000)
        sink = MultipartSink(store, name, head_size=writer.head_size, options=small)
        sink.commit(stream(source, writer, sink, threads=threads, stop=Stop(), tally=Tally()))
        return (Path(folder) / name).read_bytes()


def planned(source: Source, options: Format, threads: int = 2) -> Layout:
    writer = writer_for(source, options)
    assert isinstance(writer, PlannedWriter)
    return plan(source, writer, threads=threads, stop=Stop(), tally=Tally())


def emitted(source: Source, layout: Layout, threads: int = 2) -> bytes:
    sink = MemorySink()
    sink.parallel = False
    sink.commit(emit(layout, source, sink, threads=threads, stop=Stop(), tally=Tally()))
    assert [offset for offset, _ in sink.given] == sorted(offset for offset, _ in sink.given)
    return sink.content()
