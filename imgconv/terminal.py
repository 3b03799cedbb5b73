"""What people and programs see of a conversion on the terminal."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

from imgconv.units import format_size

if TYPE_CHECKING:
    from imgconv.progress import Progress
    from imgconv.report import Measurement, Report

_JSON_SECONDS = 0.5

Close: TypeAlias = Callable[[], None]


def say(text: str) -> None:
    """Write one line to standard error, whatever characters a file name brought along."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    try:
        print(f"imgconv: {line}", file=sys.stderr, flush=True)
    except UnicodeEncodeError:
        print(f"imgconv: {ascii(line)[1:-1]}", file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody is left to hear it


def print_json(value: object, *, to_stderr: bool = False) -> None:
    """Write one line of JSON."""
    stream = sys.stderr if to_stderr else sys.stdout
    print(json.dumps(value), file=stream, flush=True)


def progress_bar() -> "tuple[Callable[[Progress], None], Close]":
    """Return a watcher that draws a bar on standard error, and what ends it."""
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
                file=sys.stderr,
                leave=False,
            )
        bar.update(now.done - bar.n)

    def close() -> None:
        if bar is not None:
            bar.close()

    return watch, close


def progress_lines() -> "tuple[Callable[[Progress], None], Close]":
    """Return a watcher that writes JSON lines to standard error now and then."""
    last = 0.0

    def watch(now: "Progress") -> None:
        nonlocal last
        moment = time.monotonic()
        if moment - last >= _JSON_SECONDS or now.done >= now.total:
            last = moment
            print_json({"progress": asdict(now)}, to_stderr=True)

    return watch, lambda: None


def report_text(report: "Report") -> str:
    """Sum up a conversion: virtual, data and written bytes apart."""
    rate = report.virtual_size / max(report.seconds, 1e-9)
    return (
        f"{report.output}: {report.format}, virtual {format_size(report.virtual_size)}, "
        f"data {format_size(report.data_bytes)}, "
        f"written {format_size(report.written_bytes)}, "
        f"file {format_size(report.output_size)}; "
        f"{report.seconds:.2f} s ({format_size(rate)}/s of disk)"
    )


def measurement_text(measured: "Measurement") -> str:
    """Say how large an output would be."""
    return (
        f"size: {measured.size}\n"
        f"allocated: {measured.allocated}\n"
        f"virtual size: {measured.virtual_size}\n"
        f"data: {measured.data_bytes}"
    )
