"""`imgconv check` as people and programs use it, and images damaged by chance."""

import ast
import json
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import disks
from support.cli import assert_one_line_error
from support.cli import imgconv as command
from support.damage import check, flip, number
from support.variants import VARIANTS

import imgconv
from imgconv.errors import CheckUnsupported, SourceError
from imgconv.units import KiB, MiB

NAMES = ("qcow2", "qcow2-zstd", "qcow2-512", "vdi", "vhd", "vhd-fixed", "vmdk", "vmdk-stream")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    raw = disks.random_runs(tmp_path / "disk.raw", 3 * MiB)
    imgconv.convert(raw, tmp_path / "disk.qcow2")
    return tmp_path / "disk.qcow2"


def damaged(image: Path) -> Path:
    block = number(image, number(image, 48, ">Q"), ">Q")
    flip(image, block + 3, 1)  # of the second cluster
    return image


def test_a_sound_image(image: Path) -> None:
    done = command("check", image)
    assert done.returncode == 0
    assert done.stdout.startswith("No errors were found on the image.\n")
    assert f"Image end offset: {image.stat().st_size}" in done.stdout
    assert command("check", "-q", image).stdout == ""


def test_a_damaged_image(image: Path) -> None:
    done = command("check", damaged(image))
    assert done.returncode == 2
    assert "corruption refcount-low at offset 65536: cluster 1 has " in done.stdout
    assert "Data may be corrupted" in done.stdout


def test_as_json(image: Path) -> None:
    done = command("check", "--json", damaged(image))
    assert done.returncode == 2
    told = json.loads(done.stdout)
    keys = {"filename", "format", "corruptions", "leaks", "check-errors", "warnings"}
    keys |= {"decoded", "findings", "omitted", "total-clusters", "allocated-clusters"}
    keys |= {"compressed-clusters", "fragmented-clusters", "image-end-offset"}
    assert set(told) == keys
    assert {found["rule"] for found in told["findings"]} == {"copied-flag", "refcount-low"}
    assert set(told["findings"][0]) == {"severity", "rule", "offset", "text"}


def test_more_than_is_shown(image: Path) -> None:
    table = number(image, 48, ">Q")
    with open(image, "r+b") as file:
        file.seek(table)
        file.write(bytes(8))  # no refcounts at all
    done = command("check", "--limit", "2", image)
    assert done.stdout.count("corruption refcount-low") == 2
    assert "more of refcount-low" in done.stdout


def test_raw_has_nothing_to_check(tmp_path: Path) -> None:
    raw = disks.last_byte(tmp_path / "disk.raw", MiB)
    assert_one_line_error(command("check", raw), "nothing to check", status=63)
    with pytest.raises(CheckUnsupported):
        check(raw, "raw")


def test_failures_are_told_from_corruption(tmp_path: Path) -> None:
    assert_one_line_error(command("check", tmp_path / "none.qcow2"), "No such file")
    assert_one_line_error(command("check", "--limit", "x", "none"), "whole number")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("samples")
    raw = disks.random_runs(folder / "disk.raw", MiB)
    found = {}
    for name in NAMES:
        imgconv.convert(raw, folder / name, options=VARIANTS[name])
        found[name] = (folder / name).read_bytes()
    return found


@settings(max_examples=250, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    spots=st.lists(
        st.tuples(
            st.sampled_from(["front", "back", "any"]),
            st.integers(0, 1 << 20),
            st.binary(min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=4,
    ),
    cut=st.one_of(st.none(), st.integers(1, 1 << 20)),
)
def test_any_damage_gives_findings_or_one_error(
    samples: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    spots: list[tuple[str, int, bytes]],
    cut: int | None,
) -> None:
    content = bytearray(samples[name])
    for where, at, new in spots:
        front = {"front": 2 * KiB, "back": 2 * KiB, "any": len(content)}[where]
        at = at % front + (len(content) - front if where == "back" else 0)
        content[at : at + len(new)] = new
    if cut is not None:
        del content[cut % len(content) + 1 :]
    image = tmp_path_factory.getbasetemp() / "damaged"
    image.write_bytes(content)
    tracemalloc.start()
    with suppress(SourceError):
        report = check(image, VARIANTS[name].name, threads=1)
        assert len(report.findings) < 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 192 * MiB


def test_every_rule_is_documented() -> None:
    """Rules are first arguments of what records them, or stand beside them in tables."""
    folder = Path(imgconv.__file__).parent / "checks"
    text = (folder.parent.parent / "docs" / "checking.md").read_text()
    recorders = {"corruption", "leak", "error", "warning", "corruptions", "warnings", "noting"}
    places = {
        "require": 1,
        "advise": 1,
        "noting": 0,
        **dict.fromkeys(recorders, 0),
        "add_all": 1,
    }
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            function = node.func
            name = (
                function.attr
                if isinstance(function, ast.Attribute)
                else (function.id if isinstance(function, ast.Name) else "")
            )
            if name not in places or len(node.args) <= places[name]:
                continue
            rule = node.args[places[name]]
            if isinstance(rule, ast.Constant) and isinstance(rule.value, str):
                assert f"`{rule.value}`" in text, rule.value
