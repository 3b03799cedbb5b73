"""The arguments that every part of the suite takes."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from processes import warn_if_busy

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Settings:
    """How large, how often, where, with which imgconv, and where the records go."""

    scale: float
    runs: int
    folder: Path
    bin: Path
    results: Path

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """A temporary folder for sources and outputs."""
        warn_if_busy()
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="imgconv-bench-") as folder:
            yield Path(folder)


def parser(about: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--scale", type=float, default=1.0, help="size of the corpora")
    parser.add_argument("--runs", type=int, default=5, help="of each tool in each cell")
    parser.add_argument(
        "--folder", type=Path, default="/dev/shm", help="where sources and outputs go"
    )
    parser.add_argument(
        "--bin",
        type=Path,
        default=HERE.parent / "build" / "bench-venv" / "bin",
        help="where imgconv and its python are installed",
    )
    parser.add_argument("--results", type=Path, default=HERE / "results")
    return parser


def settings_of(arguments: argparse.Namespace) -> Settings:
    settings = Settings(
        arguments.scale, arguments.runs, arguments.folder, arguments.bin, arguments.results
    )
    if not (settings.bin / "imgconv").exists():
        raise SystemExit(f"there is no imgconv in {settings.bin}; make bench installs it")
    return settings
