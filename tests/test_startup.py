"""Start-up is part of every conversion's time: nothing is loaded that is not used.

What a run loads is what it adds to the modules of a fresh interpreter.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import disks

from imgconv.units import MiB

_RUN = """
import os, sys
fresh = set(sys.modules)
status = 0
{what}
print(*set(sys.modules) - fresh, len(os.listdir("/proc/self/task")), file=sys.stderr)
sys.exit(status)
"""
_COMMAND = """
from imgconv.__main__ import main
try:
    status = main()
except SystemExit as end:
    status = end.code
"""

# of the standard library and of our dependencies; each takes a millisecond or more
SLOW = {"boto3", "botocore", "bz2", "hashlib", "http", "importlib.metadata", "json", "logging"}
SLOW |= {"lzma", "numpy.ma", "numpy.typing", "pathlib", "random", "selectors", "shutil"}
SLOW |= {"socket", "ssl", "subprocess", "tempfile", "tqdm", "urllib", "urllib3", "uuid", "zlib"}

UNUSED = {"body", "comparison", "objects", "objectstore", "stores", "upload", "uploads"}
UNUSED |= {"sinks.device", "sinks.multipart", "sinks.null", "sinks.stream", "sources.remote"}


def run(what: str, *arguments: str | Path) -> tuple[set[str], int]:
    """Return the modules that a run loaded, and how many threads the process has then."""
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", _RUN.format(what=what), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    *modules, threads = done.stderr.splitlines()[-1].split()
    return set(modules), int(threads)


def loaded(*arguments: str | Path) -> set[str]:
    return run(_COMMAND, *arguments)[0]


def own(modules: set[str]) -> set[str]:
    return {name.removeprefix("imgconv.") for name in modules if name.startswith("imgconv.")}


@pytest.fixture(scope="module")
def numpy() -> set[str]:
    """What comes with numpy whoever imports it."""
    return run("import numpy")[0]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return disks.holes(tmp_path / "disk.raw", 9 * MiB)


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_no_engine_to_say_a_few_words(argument: str) -> None:
    modules = loaded(argument)
    assert own(modules) == {
        *("__main__", "cli", "commands", "errors", "terminal", "units", "version"),
    }
    assert not modules & (SLOW | {"dataclasses", "inspect", "numpy", "threading"})


@pytest.mark.parametrize(
    ("format_name", "options", "needed"),
    [
        ("raw", "", set()),
        ("qcow2", "", set()),
        ("vhd", "subformat=dynamic", {"hashlib"}),
        ("vhd", "subformat=fixed", {"hashlib"}),
        ("vdi", "subformat=dynamic", {"hashlib"}),
        ("vdi", "subformat=fixed", {"hashlib"}),
        ("vhdx", "subformat=dynamic", {"hashlib"}),
        ("vhdx", "subformat=fixed", {"hashlib"}),
        ("vmdk", "subformat=monolithicSparse", {"hashlib", "uuid"}),
        ("vmdk", "subformat=streamOptimized", {"hashlib", "uuid"}),
    ],
)
def test_a_conversion_loads_what_it_uses(
    tmp_path: Path, raw: Path, numpy: set[str], format_name: str, options: str, needed: set[str]
) -> None:
    target = tmp_path / "out"
    modules = loaded(raw, target, "-O", format_name, *(["-o", options] if options else []))
    assert target.exists()
    assert (modules - numpy) & SLOW == needed - numpy
    assert {name for name in modules if name.startswith("numpy")} <= numpy
    assert not own(modules) & UNUSED
    formats = {name for name in own(modules) if name.startswith("formats.")}
    formats -= {"formats.base", "formats.body", "formats.tables"}
    assert all(name.startswith(f"formats.{format_name}") for name in formats)


def test_measuring_and_comparing_load_what_they_use(raw: Path, numpy: set[str]) -> None:
    measuring = loaded("measure", raw, "-O", "qcow2")
    assert own(measuring) & UNUSED == {"sinks.null"}
    comparing = loaded("compare", raw, raw)
    assert own(comparing) & UNUSED == {"comparison"}
    for modules in (measuring, comparing):
        assert not (modules - numpy) & SLOW
        assert {name for name in modules if name.startswith("numpy")} <= numpy


def test_numpy_brings_no_threads_into_the_command(tmp_path: Path) -> None:
    modules, threads = run(_COMMAND, tmp_path / "missing.raw", tmp_path / "out.raw")
    assert "numpy" in modules
    assert threads == 1
