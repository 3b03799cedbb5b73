"""The benchmark suite runs: a cell of each part, tiny, through to the README. No timings."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks"
BIN = Path(sys.executable).parent
TOOLS = {"imgconv", "qemu-img", "qemu-img -m 16 -W"}


def run(script: str, results: Path, *options: str | Path) -> str:
    settings = ["--scale", "0.005", "--runs", "1", "--bin", BIN, "--results", results]
    done = subprocess.run(
        [sys.executable, FOLDER / script, *settings, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def records(results: Path, kind: str) -> list[dict[str, Any]]:
    lines = (results / f"{kind}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of one cell, or one point, of every part."""
    folder = tmp_path_factory.mktemp("results")
    run("matrix.py", folder, "--corpus", "filesystem", "--format", "raw")
    run("startup.py", folder, "--format", "qcow2")
    run("scaling.py", folder, "--axis", "threads", "--format", "qcow2")
    for case in ("qcow2 zstd", "raw.gz", "raw.tar.gz"):
        run("compression.py", folder, "--case", case)
    for case in ("vhd", "streamOptimized"):
        run("reading.py", folder, "--case", case)
    return folder


def test_a_cell_of_the_matrix(results: Path) -> None:
    (cell,) = records(results, "matrix")
    assert (cell["corpus"], cell["format"]) == ("filesystem", "raw")
    assert {*cell["tools"]} == TOOLS | {"nbdcopy", "cp --sparse=always"}
    assert 0 < cell["data"] < cell["virtual_size"]
    for name, tool in cell["tools"].items():
        (sample,) = tool["samples"]
        assert tool["seconds"]["median"] == sample["seconds"] > 0
        assert sample["size"] == cell["virtual_size"]
        assert sample["allocated"] >= cell["data"], name
        assert name == "imgconv" or sample["written"] >= cell["data"], name  # pages handed in


def test_every_record_says_where_and_with_what_it_was_made(results: Path) -> None:
    for kind in ("matrix", "startup", "scaling"):
        for record in records(results, kind):
            assert record["kind"] == kind
            assert {"cpu", "cores", "memory", "kernel"} < {*record["machine"]}
            assert {"imgconv", "python", "numpy", "qemu-img"} < {*record["machine"]}
            assert {"utc", "scale", "runs", "file_system", "commit"} < {*record}
            assert 0 <= record["others_cpu_share"] <= 1


def test_points_of_an_axis_differ_in_its_coordinate_alone(results: Path) -> None:
    points = records(results, "scaling")
    assert [p["threads"] for p in points] == [1, 2, 4]
    assert len({(p["virtual_size"], p["data"]) for p in points}) == 1


def test_startup_is_seen_beside_numpy(results: Path) -> None:
    (cell,) = records(results, "startup")
    assert {*cell["tools"]} == TOOLS | {"python", "import numpy", "imgconv --version"}


def test_compressed_outputs_stand_beside_those_of_others(results: Path) -> None:
    cells = {cell["case"]: cell for cell in records(results, "compression")}
    assert {*cells} == {"qcow2 zstd", "raw.gz", "raw.tar.gz"}
    for cell in cells.values():
        ours = [name for name in cell["tools"] if name.startswith("imgconv --compress")]
        assert len(ours) == 3
        assert {*cell["references"]} <= {*cell["tools"]} - {*ours}
        for name, tool in cell["tools"].items():
            (sample,) = tool["samples"]
            assert 0 < sample["size"] < cell["virtual_size"], name


def test_images_are_read_beside_qemu_img(results: Path) -> None:
    cells = {cell["case"]: cell for cell in records(results, "reading")}
    assert {*cells} == {"vhd", "streamOptimized"}
    for cell in cells.values():
        assert {*cell["tools"]} == TOOLS
        for tool in cell["tools"].values():
            assert tool["samples"][0]["size"] == cell["virtual_size"]


def test_the_report_goes_between_two_comments(results: Path, tmp_path: Path) -> None:
    readme = Path(shutil.copy(ROOT / "README.md", tmp_path))
    before = readme.read_text()
    run("plots.py", results, "--plots", tmp_path / "docs")
    run("report.py", results, "--into", readme, "--plots", tmp_path / "docs")
    after = readme.read_text()
    section = re.compile("(?<=<!-- benchmarks -->\n).*(?=\n<!-- /benchmarks -->)", re.DOTALL)
    assert section.sub("", after) == section.sub("", before)
    (text,) = section.findall(after)
    assert re.search(r"\| streamOptimized, `filesystem` \| .* / 1.5x \|", text)
    assert re.search(r"\| `filesystem`<br>.* / 2x<br>[\d.]+ s, [\d.]+ s \|", text)
    for name in ("matrix.png", "scaling-qcow2.png"):
        assert f"(docs/{name})" in text
        assert (tmp_path / "docs" / name).read_bytes().startswith(b"\x89PNG")


def test_a_wrong_output_never_wins(tmp_path: Path) -> None:
    """An imgconv that copies nothing is found out, and no record is written."""
    for name in ("python", "imgconv"):
        (tmp_path / name).symlink_to(BIN / name)
    (tmp_path / "imgconv").unlink()
    (tmp_path / "imgconv").write_text('#!/bin/sh\ntruncate -s 1M "$2"\n')
    (tmp_path / "imgconv").chmod(0o755)
    options = ["--corpus", "dense", "--format", "raw", "--scale", "0.005", "--runs", "1"]
    done = subprocess.run(
        [sys.executable, FOLDER / "matrix.py", "--bin", tmp_path, "--results", tmp_path]
        + options,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "differs from" in done.stderr
    assert not list(tmp_path.glob("*.jsonl"))


def test_the_figures_of_a_fleet_are_those_of_the_simulation() -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / "fleet_simulation.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    page = (ROOT / "docs" / "fleet.md").read_text()
    shown = page.partition("<!-- fleet_simulation -->\n")[2]
    assert shown.partition("<!-- /fleet_simulation -->")[0] == done.stdout
