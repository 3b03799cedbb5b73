"""What people and programs see of a conversion on the terminal."""

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from imgconv.errors import WriteFailed, one_line
from imgconv.units import format_size

if TYPE_CHECKING:
    from imgconv.comparison import Comparison
    from imgconv.measurement import Measurement
    from imgconv.progress import Progress, Watcher
    from imgconv.report import Report
    from imgconv.uploads import UnfinishedUpload

_JSON_SECONDS = 0.5


def say(text: str) -> None:
    """Write one line to standard error; if nobody is left to hear it, so be it."""
    with suppress(OSError):
        _print(f"imgconv: {one_line(text)}", sys.stderr)


def show(line: str, *, to_stderr: bool = False) -> None:
    """Write one line of a result to standard output.

    Raises WriteFailed when it cannot be written; a reader who has read enough is no error.
    """
    try:
        _print(one_line(line), sys.stderr if to_stderr else sys.stdout)
    except BrokenPipeError:
        pass
    except OSError as error:
        if not to_stderr:
            raise WriteFailed("standard output", error.strerror or str(error)) from error


def write(text: str) -> bool:
    """Write part of a long result, made of printable lines, to standard output.

    Returns whether anybody wants to read on; raises WriteFailed when it cannot be written.
    """
    try:
        sys.stdout.write(_known(text, sys.stdout))
        sys.stdout.flush()
    except BrokenPipeError:
        _give_up(sys.stdout)
        return False
    except OSError as error:
        _give_up(sys.stdout)
        raise WriteFailed("standard output", error.strerror or str(error)) from error
    return True


def _known(text: str, stream: TextIO) -> str:
    """Return text as far as the stream's encoding knows it, the rest in backslashes."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _print(line: str, stream: TextIO) -> None:
    try:
        print(_known(line, stream), file=stream, flush=True)
    except OSError:
        _give_up(stream)
        raise


def _give_up(stream: TextIO) -> None:
    """Let a stream that failed lead nowhere: what it has buffered would be tried, and
    would fail, once more at exit."""
    with suppress(OSError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def print_json(value: object, *, to_stderr: bool = False) -> None:
    """Write one line of JSON; a dataclass becomes an object with its fields."""
    import json  # these two take milliseconds, and most runs print none
    from dataclasses import asdict

    show(json.dumps(value, default=asdict), to_stderr=to_stderr)


class _Unheard(io.TextIOBase):
    """A stream whose failures nobody hears of: a bar that cannot be drawn is no reason to
    fail, and tqdm keeps its lock for ever when drawing raises."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def isatty(self) -> bool:
        """Ask the stream."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Ask the stream."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write if that is possible."""
        try:
            self._stream.write(text)
        except OSError:
            _give_up(self._stream)
        return len(text)

    def flush(self) -> None:
        """Flush if that is possible."""
        try:
            self._stream.flush()
        except OSError:
            _give_up(self._stream)


@contextmanager
def progress_bar() -> "Iterator[Watcher]":
    """Have a watcher that draws a bar on standard error, which goes in the end."""
    from tqdm import tqdm

    bar: tqdm[Any] | None = None
    phase = ""

    def watch(now: "Progress") -> None:
        nonlocal bar, phase
        if bar is None or now.phase != phase:
            if bar is not None:
                bar.close()
            phase = now.phase
            bar = tqdm(
                total=now.total,
                desc=phase,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                file=_Unheard(sys.stderr),
                leave=False,
            )
        if now.parts or now.wire:
            note = f"wire {format_size(now.wire)}, {now.parts} parts"
            bar.set_postfix_str(
                note + (f", {now.retries} retries" if now.retries else ""), False
            )
        bar.update(now.done - bar.n)

    try:
        yield watch
    finally:
        if bar is not None:
            bar.close()


def progress_lines() -> "Watcher":
    """Return a watcher that writes JSON lines to standard error now and then."""
    last = 0.0

    def watch(now: "Progress") -> None:
        nonlocal last
        moment = time.monotonic()
        if moment - last >= _JSON_SECONDS or now.done >= now.total:
            last = moment
            print_json({"progress": now}, to_stderr=True)

    return watch


def report_text(report: "Report") -> str:
    """Sum up a conversion: virtual, data and written or sent bytes apart, if verified."""
    rate = report.virtual_size / max(report.seconds, 1e-9)
    return (
        f"{report.output}: {report.format}, virtual {format_size(report.virtual_size)}, "
        f"data {format_size(report.data_bytes)}, "
        f"{_delivery_text(report)}{', verified' if report.verified else ''}; "
        f"{report.seconds:.2f} s ({format_size(rate)}/s of disk)"
    )


def _delivery_text(report: "Report") -> str:
    size = format_size(report.output_size)
    upload = report.upload
    if upload is None:
        return f"written {format_size(report.written_bytes)}, file {size}"
    counts = {
        "parts": len(upload.parts),
        "kept": upload.kept_parts,
        "copied": upload.copied_parts,
        "retries": upload.retries,
    }
    told = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
    return (
        f"sent {format_size(upload.wire_bytes)}, object {size} ({told}), "
        f"{upload.checksum} {upload.crc}"
    )


def comparison_text(found: "Comparison") -> str:
    """Say whether two disks are the same, in the words of qemu-img."""
    if found.identical:
        return "Images are identical."
    if found.first_difference is None:
        return f"Sizes differ: {found.first_size} and {found.second_size} bytes."
    return f"Content mismatch at offset {found.first_difference}!"


def upload_line(upload: "UnfinishedUpload") -> str:
    """Describe an unfinished upload: age, what it holds, where."""
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(upload.started))
    held = f"{upload.parts} parts, {format_size(upload.size)}"
    return f"{began}  {held:>24}  {upload.url}  {upload.id}"


def measurement_lines(measured: "Measurement") -> list[str]:
    """Say how large an output would be, in bytes."""
    doubt = f" +- {measured.error} (estimate; --exact)" if measured.error else ""
    return [
        f"size: {measured.size}{doubt}",
        f"allocated: {measured.allocated}",
        f"virtual size: {measured.virtual_size}",
        f"data: {measured.data_bytes}",
    ]
