"""The command as people use it: a process with arguments, output and an exit code."""

import json
import os
from pathlib import Path

import pytest
from support import disks
from support.cli import assert_one_line_error, imgconv

from imgconv.units import KiB, MiB
from imgconv.version import __version__

EVERY_FORMAT = "raw, raw.gz, raw.zst, raw.tar.gz, vhd, qcow2, vmdk, vdi, vhdx"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return disks.holes(tmp_path / "disk.raw", 9 * MiB)


def test_in_out_is_enough(tmp_path: Path, raw: Path) -> None:
    done = imgconv(raw, tmp_path / "o.vmdk")
    assert done.returncode == 0
    assert done.stderr == ""
    for word in ("vmdk", "virtual 9 MiB", "data ", "written ", "file "):
        assert word in done.stdout


def test_the_command_may_be_spelt_out(tmp_path: Path, raw: Path) -> None:
    assert imgconv("convert", raw, tmp_path / "o.vdi").returncode == 0
    assert imgconv("convert", "-O", "vpc", raw, tmp_path / "disk").returncode == 0
    assert (tmp_path / "disk").read_bytes()[:8] == b"conectix"


def test_options_reach_the_format(tmp_path: Path, raw: Path) -> None:
    arguments = ["-O", "qcow2", "-o", "cluster_size=4k", "-o", "compat=0.10"]
    assert imgconv(raw, tmp_path / "o", *arguments).returncode == 0
    head = (tmp_path / "o").read_bytes()[:24]
    assert (head[7], head[23]) == (2, 12)


def test_what_was_verified_is_said_to_be(tmp_path: Path, raw: Path) -> None:
    assert ", verified; " in imgconv(raw, tmp_path / "o.vmdk", "--verify").stdout
    assert ", verified" not in imgconv(raw, tmp_path / "o.vmdk").stdout


def test_quiet(tmp_path: Path, raw: Path) -> None:
    done = imgconv(raw, tmp_path / "o.vmdk", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_json_report(tmp_path: Path, raw: Path) -> None:
    done = imgconv(raw, tmp_path / "o.qcow2", "--json", "--identity", "me", "-m", "3")
    report = json.loads(done.stdout)
    assert report["virtual_size"] == 9 * MiB
    assert report["output_size"] == (tmp_path / "o.qcow2").stat().st_size
    assert (report["identity"], report["threads"]) == ("me", 3)
    assert done.stderr == ""


def test_json_report_of_a_stream_goes_to_stderr(raw: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    done = imgconv(raw, "/dev/null", "-O", "raw", "--json")
    assert json.loads(done.stdout)["output"] == "/dev/null"


def test_progress_as_json_lines(tmp_path: Path, raw: Path) -> None:
    done = imgconv(raw, tmp_path / "o.qcow2", "--json", "-p")
    lines = [json.loads(line)["progress"] for line in done.stderr.splitlines()]
    assert lines[-1]["done"] == lines[-1]["total"] == 9 * MiB
    counts = {"done", "total", "data", "written", "wire", "parts", "retries"}
    assert set(lines[0]) == {"phase", *counts}
    assert json.loads(done.stdout)["format"] == "qcow2"


def test_a_progress_bar_when_asked(tmp_path: Path, raw: Path) -> None:
    done = imgconv(raw, tmp_path / "o.qcow2", "-p")
    assert "convert:   0%|" in done.stderr
    assert "/9.00M [" in done.stderr


def test_dry_run_writes_nothing(tmp_path: Path, raw: Path) -> None:
    done = imgconv(raw, tmp_path / "o.qcow2", "-n")
    assert done.returncode == 0
    assert [p.name for p in tmp_path.iterdir()] == ["disk.raw"]
    imgconv(raw, tmp_path / "o.qcow2")
    assert f"size: {(tmp_path / 'o.qcow2').stat().st_size}\n" in done.stdout


def test_measure(tmp_path: Path, raw: Path) -> None:
    done = imgconv("measure", raw, "-O", "vhd", "--json")
    imgconv(raw, tmp_path / "o.vhd")
    assert json.loads(done.stdout)["size"] == (tmp_path / "o.vhd").stat().st_size
    assert_one_line_error(imgconv("measure", raw), "output format with -O", status=2)


def test_the_padding_warning_comes_once(tmp_path: Path) -> None:
    raw = disks.dense(tmp_path / "d.raw", 1000)
    done = imgconv(raw, tmp_path / "o.qcow2")
    assert done.returncode == 0
    assert done.stderr.count("imgconv: warning: ") == len(done.stderr.splitlines()) == 1
    assert "padded with 24 zero bytes" in done.stderr


def test_help_and_version() -> None:
    assert imgconv("--version").stdout == f"imgconv {__version__}\n"
    assert "143 terminated" in imgconv("--help").stdout
    assert "--identity" in imgconv("convert", "--help").stdout


def test_option_help() -> None:
    done = imgconv("-O", "qcow2", "-o", "help")
    assert done.returncode == 0
    assert "cluster_size=512..2M" in done.stdout
    assert "(default 65536)" in done.stdout
    everything = imgconv("-o", "help").stdout
    assert all(
        f"{name}:" in everything for name in ("raw", "vhd", "qcow2", "vmdk", "vdi", "vhdx")
    )


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (["missing.raw", "o.raw"], ["missing.raw", "No such file"], 1),
        ([".", "o.raw"], ["is a folder"], 1),
        (
            ["disk.raw", "sub"],
            ["sub", EVERY_FORMAT],
            2,
        ),
        (
            ["disk.raw", "o.iso"],
            ["o.iso", EVERY_FORMAT],
            2,
        ),
        (["disk.raw", "sub", "-O", "raw"], ["is a folder"], 1),
        (["disk.raw", "disk.raw"], ["is the input itself"], 2),
        (["disk.raw", "no/o.raw"], ["No such file"], 1),
        (["disk.raw", "o", "-O", "iso"], ["unknown format 'iso'", "qcow2"], 2),
        (["disk.raw", "o", "-O", "qcow2", "-o", "bogus=1"], ["bogus", "cluster_size"], 2),
        (["disk.raw", "o.qcow2", "-f", "qed"], ["cannot read format 'qed'"], 2),
        (["disk.raw", "o.qcow2", "-m", "0"], ["threads=0"], 2),
        (["disk.raw", "o.qcow2", "--concurrency", "0"], ["concurrency=0", "1 to 64"], 2),
        (["disk.raw", "o.qcow2", "--journal", "j"], ["journal", "resume"], 2),
        (["disk.raw", "o.qcow2", "-m", "two"], ["not a whole number"], 2),
        (["disk.raw", "-"], ["-O"], 2),
        (["disk.raw"], ["OUT", "--help"], 2),
        (["nosuch"], ["OUT", "'nosuch' is neither a file nor a command; commands: conv"], 2),
        (["chek", "disk.raw"], ["neither a file nor a command; did you mean check?"], 1),
        (["verfy-export", "o.raw"], ["No such file", "did you mean verify-export?"], 1),
        ([], ["COMMAND"], 2),
        (["disk.raw", "o.raw", "--frobnicate"], ["--frobnicate"], 2),
        (["disk.raw", "there.raw", "--no-clobber"], ["exists"], 1),
    ],
    ids=lambda v: "_".join(map(str, v)).replace("/", "~") if isinstance(v, list) else str(v),
)
def test_wrong_use_is_one_line(
    tmp_path: Path, raw: Path, arguments: list[str], words: list[str], status: int
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "there.raw").write_bytes(b"old")
    before = sorted(tmp_path.iterdir())
    assert_one_line_error(imgconv(*arguments, cwd=tmp_path), *words, status=status)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.raw").read_bytes() == b"old"


def test_compare(tmp_path: Path, raw: Path) -> None:
    other = tmp_path / "other.raw"
    other.write_bytes(raw.read_bytes() + bytes(MiB))
    done = imgconv("compare", raw, other)
    assert (done.returncode, done.stdout) == (0, "Images are identical.\n")
    strict = imgconv("compare", "-s", raw, other)
    assert (strict.returncode, "Sizes differ" in strict.stdout) == (1, True)
    other.write_bytes(bytes(MiB))
    done = imgconv("compare", raw, other, "--json")
    assert (done.returncode, json.loads(done.stdout)["first_difference"]) == (1, 0)
    assert (imgconv("compare", raw, other, "-q").returncode) == 1
    assert_one_line_error(imgconv("compare", raw, tmp_path / "no.raw"), "no.raw", status=2)


def test_an_unreadable_file(tmp_path: Path, raw: Path) -> None:
    """Root reads anything with a mode, so ask for what even root may not read."""
    assert_one_line_error(imgconv("/proc/self/mem", tmp_path / "o.raw"), "/proc/self/mem")


def test_errors_are_json_too(tmp_path: Path) -> None:
    done = imgconv("missing", tmp_path / "o.raw", "--json")
    assert done.returncode == 1
    _, line = done.stderr.splitlines()
    assert json.loads(line)["error"]["code"] == "source-unreadable"


def test_names_that_would_break_a_line(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\nb\x1b[31m\xff")
    done = imgconv(tmp_path / name, tmp_path / "o.raw")
    assert_one_line_error(done, "a\\nb\\x1b[31m")


def test_an_undecodable_name_works(tmp_path: Path, raw: Path) -> None:
    name = os.fsdecode(b"disk\xff.vmdk")
    assert imgconv(raw, tmp_path / name, "-q").returncode == 0
    assert (tmp_path / name).stat().st_size > 0


def test_a_demanded_kernel(tmp_path: Path, raw: Path) -> None:
    done = imgconv(raw, tmp_path / "o.raw", "--json", IMGCONV_KERNEL="scalar")
    assert json.loads(done.stdout)["kernel"] == "scalar"
    done = imgconv(raw, tmp_path / "o.raw", IMGCONV_KERNEL="warp")
    assert_one_line_error(done, "no such kernel", status=2)


def test_debug_shows_where(tmp_path: Path) -> None:
    done = imgconv("missing", tmp_path / "o.raw", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_the_mixed_content_survives(tmp_path: Path) -> None:
    content = disks.random_runs(tmp_path / "d.raw", 3 * MiB + 64 * KiB)
    assert imgconv(content, tmp_path / "o.img").returncode == 0
    assert (tmp_path / "o.img").read_bytes() == content.read_bytes()
