"""Hostile images are refused: by name, in one line, leaving nothing, opening nothing else."""

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli import assert_one_line_error
from support.engine import MemorySource

from hostile.case import MALFORMED, Case
from hostile.cases import FAMILIES
from hostile.made import L1, C, Made, make_qcow2, make_vdi, make_vhd, make_vmdk, text
from hostile.packed_cases import make_gz, make_tar_gz, make_zst
from hostile.vhdx_cases import make_vhdx
from imgconv import ReadOptions
from imgconv.errors import ImageMalformed, ImageUnsupported, OptionError
from imgconv.sources import open_image
from imgconv.sources.options import Budget
from imgconv.units import MiB, round_up

TESTS = Path(__file__).parent.parent
SECONDS = 1.0  # of processor time for one image, with start-up; 0.4 is the most seen
MEMORY = 256 * MiB  # of a process that has had all images of a format
SOUND: dict[str, Callable[[], Made]] = {
    "qcow2": make_qcow2,
    "vhd": make_vhd,
    "vdi": make_vdi,
    "vmdk": make_vmdk,
    "vhdx": make_vhdx,
    "raw.gz": make_gz,
    "raw.zst": make_zst,
    "raw.tar.gz": make_tar_gz,
}


def lay_out(folder: Path, family: str, case: Case) -> Path:
    """Make the image and what is beside it; return the image."""
    folder.mkdir()
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "fifo")
    for name, content in (case.beside or {}).items():
        (folder / name).write_bytes(content)
    usual = "qcow2" if family == "probed" else family
    return case.make().write(folder / (case.name or f"disk.{usual}"))


def ask(folder: Path, orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Have a worker convert images; return its answers."""
    done = subprocess.run(
        [sys.executable, "-m", "hostile.worker", folder],
        input="".join(json.dumps(order) + "\n" for order in orders),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(orders), f"died of {orders[len(answers)]}: {done.stderr}"
    return answers


def order(image: Path, case: Case | None = None) -> dict[str, Any]:
    if case is None:
        return {"image": str(image), "format": "", "allowed": "none"}
    names = "format", "allowed", "snapshot", "size"
    return {"image": str(image), **{name: getattr(case, name) for name in names}}


def is_of(folder: Path, path: str) -> bool:
    """Say whether a path is one of the images or of the system that they might name, and not
    one that the program itself is loaded from; what it opens within a folder is relative."""
    ours = (str(folder), "/etc/passwd", "/dev/zero")
    return path.startswith(ours) or not os.path.isabs(path)


def faults(case: Case, image: Path, answer: dict[str, Any]) -> list[str]:
    """What is wrong with how an image was refused."""
    said = answer["message"]
    known = {image.name, *(case.beside or {})}
    strange = {p for p in answer["opened"] if is_of(image.parent, p)}
    strange = {p for p in strange if Path(p).name not in known}
    rules = {
        "code": answer["code"] == case.code,
        "words": re.search(case.words, said) is not None,
        "one line": said.isprintable(),
        "offset": case.code != MALFORMED or re.search("at offset [0-9]+: ", said) is not None,
        "opened": not strange,
        "nothing left": not answer["left"],
        "nothing leaked": answer["leaked"] == 0,
        "exit code": answer["status"] == 1,
        "time": answer["seconds"] < SECONDS,
        "memory": answer["memory"] < MEMORY,
    }
    return [f"{rule}: {answer}" for rule, holds in rules.items() if not holds]


@pytest.mark.parametrize("family", FAMILIES)
def test_hostile_images_are_refused(tmp_path: Path, family: str) -> None:
    cases = list(FAMILIES[family].values())
    images = [lay_out(tmp_path / str(n), family, case) for n, case in enumerate(cases)]
    out = tmp_path / "out"
    out.mkdir()
    answers = ask(out, [order(*pair) for pair in zip(images, cases, strict=True)])
    wrong = {
        name: found
        for name, case, image, answer in zip(
            FAMILIES[family], cases, images, answers, strict=True
        )
        if (found := faults(case, image, answer))
    }
    assert not wrong, "\n".join(f"{name}: {found}" for name, found in wrong.items())


@pytest.mark.parametrize("name", SOUND)
def test_the_images_are_sound_but_for_what_is_wrong(tmp_path: Path, name: str) -> None:
    """Otherwise each of them would be refused for another reason than its own."""
    image = SOUND[name]().write(tmp_path / f"disk.{name}")
    (tmp_path / "out").mkdir()
    (answer,) = ask(tmp_path / "out", [order(image)])
    assert answer["code"] == "read", answer
    assert answer["left"] == ["out.raw"]


SAMPLES = [(family, name) for family in FAMILIES for name in list(FAMILIES[family])[:3]]


def run(folder: Path, *words: str | Path) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the command; return also which files that are no part of it it opened."""
    reading, writing = os.pipe()
    with open(reading, "rb") as heard:
        done = subprocess.run(
            [sys.executable, "-m", "hostile.command", str(writing), *words],
            capture_output=True,
            text=True,
            check=False,
            pass_fds=[writing],
            env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        )
        os.close(writing)
        paths = [os.fsdecode(path) for path in heard.read().split(b"\0") if path]
    return done, [path for path in paths if is_of(folder, path)]


@pytest.mark.parametrize(("family", "name"), SAMPLES)
def test_the_command_refuses_them_too(tmp_path: Path, family: str, name: str) -> None:
    case = FAMILIES[family][name]
    image = lay_out(tmp_path / "in", family, case)
    (tmp_path / "out").mkdir()
    words = [image, tmp_path / "out" / "o.raw", "--allow-references", case.allowed]
    words += ["-f", case.format] if case.format else []
    words += ["--max-virtual-size", str(case.size)] if case.size else []
    words += ["--snapshot", case.snapshot] if case.snapshot else []
    done, opened = run(tmp_path, *words)
    assert_one_line_error(done)
    assert re.search(case.words, done.stderr), done.stderr
    assert not list((tmp_path / "out").iterdir())
    assert {Path(path).name for path in opened} <= {image.name, *(case.beside or {})}


def test_every_vulnerability_that_is_told_of_has_its_image() -> None:
    names = " ".join(name for family in FAMILIES.values() for name in family)
    told = (TESTS.parent / "docs" / "hostile-images.md").read_text()
    known = set(re.findall(r"CVE-[0-9]+-[0-9]+", told))
    assert len(known) == 21
    assert set(re.findall(r"CVE-[0-9]+-[0-9]+", names)) == known


def test_what_is_opened_is_seen(tmp_path: Path) -> None:
    """That the checks above can fail: what is allowed is opened, and is noticed."""
    (tmp_path / "x.vmdk").write_bytes(b"x" * 4096)
    image = tmp_path / "disk.vmdk"
    image.write_text(text('RW 8 FLAT "x.vmdk" 0'))
    done, opened = run(tmp_path, image, tmp_path / "o.raw", "--allow-references", "same-folder")
    assert done.returncode == 0, done.stderr
    assert "x.vmdk" in opened
    (tmp_path / "out").mkdir()
    (answer,) = ask(tmp_path / "out", [{**order(image), "allowed": "same-folder"}])
    assert any(path.endswith("x.vmdk") for path in answer["opened"])


def test_a_table_of_snapshots_is_no_bomb() -> None:
    """Each has all the bytes of name and id it can have; together far more than is read."""
    entry = struct.pack(">QIHHIIQII", L1, 1, 0xFFFF, 0xFFFF, 0, 0, 0, 0, 0)
    step = round_up(len(entry) + 2 * 0xFFFF, 8)
    count = 66 * MiB // step
    table = {8 * C + n * step: entry for n in range(count)}
    image = make_qcow2(
        front={"nb_snapshots": count, "snapshots_offset": 8 * C},
        pieces=table,
        size=8 * C + (count + 1) * step,
    )
    options = ReadOptions(snapshot="x")
    with pytest.raises(ImageMalformed, match="a snapshot table of more than"):
        open_image(MemorySource(image.content()), "qcow2", options)


def test_all_images_of_a_disk_share_a_budget() -> None:
    budget, content = Budget(pieces=3), make_qcow2().content()
    open_image(MemorySource(content), "qcow2", budget=budget)
    assert budget.pieces == 1
    with pytest.raises(ImageUnsupported, match="pieces"):
        open_image(MemorySource(content), "qcow2", budget=budget)


def test_a_size_beyond_all_offsets_is_no_option() -> None:
    with pytest.raises(OptionError, match="max_virtual_size"):
        ReadOptions(max_virtual_size=1 << 63)
