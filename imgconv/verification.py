"""Reading an output back, through the reader of its format, and comparing it with its source.

A file is read before it gets its name. An object cannot be: it is read from the store once it
is complete, and removed if it does not hold what it should.
"""

from typing import TYPE_CHECKING

from imgconv.comparison import Comparison, compare
from imgconv.conversion import Conversion
from imgconv.errors import (
    ImgconvError,
    ReadFailed,
    SourceError,
    StoreError,
    UnsupportedCombination,
    VerificationFailed,
)
from imgconv.outputs import is_stream
from imgconv.sinks.base import ReadableSink, Sink
from imgconv.sources import open_image
from imgconv.sources.base import Source
from imgconv.sources.file import FileSource
from imgconv.sources.mapped import MappedSource, Mapping
from imgconv.sources.options import LARGEST, ReadOptions
from imgconv.sources.probe import READABLE
from imgconv.tally import Tally
from imgconv.urls import scheme_of
from imgconv.workers import Stop

if TYPE_CHECKING:
    from imgconv.stores import Store


def refuse_unverifiable(target: str, format_name: str) -> None:
    """Raise UnsupportedCombination unless an output can be read back from there."""
    if format_name not in READABLE:
        choice = ", ".join(READABLE)
        raise UnsupportedCombination(
            f"cannot verify a {format_name}, which imgconv does not read; it reads {choice}"
        )
    scheme = scheme_of(target)
    if scheme == "ticket":
        raise UnsupportedCombination(f"{target}: a ticket does not let one read the object")
    if scheme is None and is_stream(target):
        raise UnsupportedCombination(f"{target}: cannot verify what goes to a stream")


class Verification:
    """Compares the output of a conversion with its source."""

    def __init__(self, conversion: Conversion, *, threads: int, stop: Stop, tally: Tally):
        self._conversion, self._threads = conversion, threads
        self._stop, self._tally = stop, tally

    def check_sink(self, sink: Sink, size: int) -> None:
        """Read what is not published yet; objects are for `check_object`.

        Raises VerificationFailed, and SourceChanged when it was the source that changed.
        """
        if not isinstance(sink, ReadableSink):
            return
        file = FileSource(sink.readable(size))
        file.name = self._conversion.target
        with_room = file.length > size  # a device may be larger
        self._check(_front(file, self._conversion.disk.size) if with_room else file)

    def check_object(self, sink: Sink, store: "Store | None") -> None:
        """Read the object that the sink made, if it made one; remove it if it is wrong.

        Raises VerificationFailed, SourceChanged, and, when the object cannot be read,
        ReadFailed or a StoreError: then it is left.
        """
        if scheme_of(self._conversion.target) is None:
            return
        from imgconv.objects import open_object, upload_report

        report = upload_report(sink)
        etag = report.etag if report else ""
        try:
            self._check(open_object(self._conversion.target, store, self._stop.is_set))
        except VerificationFailed as error:
            error.add_note(_remove(self._conversion.target, store, etag))
            raise
        except ImgconvError as error:
            error.add_note("the object is there, not verified")
            raise

    def _check(self, file: Source) -> None:
        """Compare, and close the file."""
        name, disk = self._conversion.target, self._conversion.disk
        try:
            found = self._compare(file)
        except ReadFailed:
            raise
        except SourceError as error:
            disk.verify()
            raise VerificationFailed(f"{name}: cannot be read back: {error}") from error
        finally:
            file.close()
        if found.identical and found.second_size == self._conversion.writer().size:
            return
        disk.verify()
        if found.first_difference is None:
            raise VerificationFailed(f"{name}: read back, it has {found.second_size} bytes")
        raise VerificationFailed(
            f"{name}: read back, it differs from {disk.name} at offset {found.first_difference}"
        )

    def _compare(self, file: Source) -> Comparison:
        options = ReadOptions(max_virtual_size=LARGEST)
        image = open_image(file, self._conversion.output.name, options)
        return compare(
            self._conversion.disk,
            image,
            threads=self._threads,
            stop=self._stop,
            tally=self._tally,
        )


def _front(file: Source, size: int) -> Source:
    """Return the front of what is larger than the disk that was written there."""
    import numpy as np

    from imgconv.ranges import Ranges

    return MappedSource(file, size, Mapping(Ranges.single(0, size), np.zeros(1, np.int64)))


def _remove(location: str, store: "Store | None", etag: str) -> str:
    """Remove the object unless it is another one by now; return what became of it."""
    from imgconv.objects import opened_store
    from imgconv.stores import parse_url

    url = parse_url(location)
    try:
        with opened_store(url, store) as opened:
            found = opened.head(url.key)
            if found is None or found.etag != etag:
                return "the object is another one by now, and was left"
            opened.delete(url.key)
    except StoreError as failure:
        return f"the object is still there: {failure}"
    return "the object was removed"
