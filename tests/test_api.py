"""The library's front door."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import disks, engine
from support.variants import EVERY

import imgconv
from imgconv.errors import LimitExceeded, OptionError, UsageError
from imgconv.units import SECTOR, GiB, KiB, MiB, TiB


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return disks.holes(tmp_path / "disk.raw", 9 * MiB)


def made(raw: Path, out: Path, variant: str, threads: int) -> bytes:
    imgconv.convert(raw, out, options=EVERY[variant], threads=threads)
    return out.read_bytes()


@pytest.mark.parametrize("variant", EVERY)
def test_threads_do_not_change_the_bytes(tmp_path: Path, raw: Path, variant: str) -> None:
    assert len({made(raw, tmp_path / "out", variant, threads) for threads in (1, 2, 7)}) == 1


def test_time_does_not_change_the_bytes(tmp_path: Path, raw: Path) -> None:
    first = {variant: made(raw, tmp_path / "out", variant, 2) for variant in EVERY}
    time.sleep(1.1)  # a clock in seconds would show
    for variant, content in first.items():
        assert made(raw, tmp_path / "out", variant, 2) == content, variant


def test_the_report_counts_bytes(tmp_path: Path) -> None:
    raw = disks.write(tmp_path / "d.raw", 8 * MiB, {MiB: b"x" * (64 * KiB)})
    report = imgconv.convert(raw, tmp_path / "o.qcow2", threads=2, identity="me")
    assert report.virtual_size == 8 * MiB
    assert report.data_bytes == 64 * KiB
    assert report.output_size == (tmp_path / "o.qcow2").stat().st_size
    assert 64 * KiB < report.written_bytes < report.output_size
    assert (report.passes, report.threads, report.identity) == (1, 2, "me")
    assert (report.source_format, report.format) == ("raw", "qcow2")
    assert report.warnings == ()


@pytest.mark.parametrize("variant", EVERY)
def test_measure_is_exact(tmp_path: Path, raw: Path, variant: str) -> None:
    options = EVERY[variant]
    measured = imgconv.measure(raw, options)
    out = tmp_path / f"disk.out.{options.name}"
    report = imgconv.convert(raw, out, options=options)
    assert measured.size == report.output_size == out.stat().st_size
    out = out.rename(tmp_path / f"disk.{options.name}") if options.name != "raw" else out
    report = imgconv.convert(raw, out, options=options)
    assert measured.allocated == report.written_bytes
    assert measured.data_bytes == report.data_bytes


def test_measure_takes_a_name(raw: Path) -> None:
    assert imgconv.measure(raw, "vpc") == imgconv.measure(raw, imgconv.Vhd())


def test_identity_names_the_disk(tmp_path: Path, raw: Path) -> None:
    """Same text, same ids; another text, another disk."""

    def vdi(identity: str | None) -> bytes:
        imgconv.convert(raw, tmp_path / "o.vdi", identity=identity)
        return (tmp_path / "o.vdi").read_bytes()

    assert vdi("a") == vdi("a") != vdi("b")
    assert vdi(None) == vdi(None) != vdi("a")
    os.utime(raw, (5, 5))
    assert vdi("a") == vdi("a")


def test_open_reads_and_maps(tmp_path: Path) -> None:
    raw = disks.write(tmp_path / "d.raw", 3 * MiB, {MiB: b"a" * 4096, 2 * MiB: b"b" * 4096})
    with imgconv.open(raw) as disk:
        assert disk.size == 3 * MiB
        assert disk.read(MiB - 2, 4) == b"\0\0aa"
        assert disk.read(3 * MiB - 2, 100) == b"\0\0"
        assert disk.read(4 * MiB, 1) == b""
        assert list(disk.extents()) == [
            (0, MiB, False),
            (MiB, MiB + 4096, True),
            (MiB + 4096, 2 * MiB, False),
            (2 * MiB, 2 * MiB + 4096, True),
            (2 * MiB + 4096, 3 * MiB, False),
        ]
        with pytest.raises(ValueError, match="negative"):
            disk.read(-1, 5)
        with pytest.raises(ValueError, match="not inside"):
            disk.read_into(3 * MiB - 1, memoryview(bytearray(2)))


def test_extents_of_an_empty_and_of_a_full_disk(tmp_path: Path) -> None:
    with imgconv.open(disks.empty(tmp_path / "e", MiB)) as disk:
        assert list(disk.extents()) == [(0, MiB, False)]
    with imgconv.open(disks.dense(tmp_path / "f", 200 * MiB)) as disk:
        assert list(disk.extents()) == [(0, 200 * MiB, True)]


def test_any_source_object_will_do(tmp_path: Path) -> None:
    imgconv.convert(engine.MemorySource(b"abcd" * SECTOR), tmp_path / "o.raw")
    assert (tmp_path / "o.raw").read_bytes() == b"abcd" * SECTOR


def test_a_format_may_be_given_by_name(tmp_path: Path, raw: Path) -> None:
    assert imgconv.convert(raw, tmp_path / "o", options="vpc").format == "vhd"
    with pytest.raises(OptionError, match=r"Qcow2: call it: Qcow2\(\)"):
        imgconv.convert(raw, tmp_path / "o", options=imgconv.Qcow2)  # type: ignore[arg-type]


def test_an_opened_disk_and_a_path_of_bytes_will_do(tmp_path: Path, raw: Path) -> None:
    with imgconv.open(os.fsencode(raw)) as disk:
        imgconv.convert(disk, os.fsencode(tmp_path / "o.raw"))
        assert disk.read(0, 512) == raw.read_bytes()[:512], "it stays open"
    assert (tmp_path / "o.raw").read_bytes() == raw.read_bytes()


def test_an_empty_identity_is_refused(tmp_path: Path, raw: Path) -> None:
    with pytest.raises(OptionError, match="every disk's"):
        imgconv.convert(raw, tmp_path / "o.vdi", identity="")


def test_names_that_no_file_can_have(tmp_path: Path, raw: Path) -> None:
    with pytest.raises(imgconv.SourceError, match="null byte"):
        imgconv.convert("a\0b", tmp_path / "o.raw")
    with pytest.raises(imgconv.SinkError, match="null byte"):
        imgconv.convert(raw, f"{tmp_path}/a\0b.raw")


def test_a_fifo_without_a_reader_can_be_cancelled(tmp_path: Path, raw: Path) -> None:
    os.mkfifo(tmp_path / "fifo.raw")
    began = time.monotonic()
    with pytest.raises(imgconv.Cancelled):
        imgconv.convert(
            raw, tmp_path / "fifo.raw", cancelled=lambda: time.monotonic() > began + 0.3
        )


def test_the_input_itself_is_no_output(tmp_path: Path, raw: Path) -> None:
    os.link(raw, tmp_path / "same.qcow2")
    (tmp_path / "link.qcow2").symlink_to(raw)
    before = raw.read_bytes()
    for name in ("same.qcow2", "link.qcow2"):
        with pytest.raises(UsageError, match="is the input itself"):
            imgconv.convert(raw, tmp_path / name)
    assert raw.read_bytes() == before


FIXED, STREAM = "vhd with subformat=fixed", "vmdk with subformat=streamOptimized"


@pytest.mark.parametrize(
    ("size", "options", "fits"),
    [
        (2040 * GiB + SECTOR, imgconv.Vhd(), {"raw", FIXED, "qcow2", "vmdk", "vdi", "vhdx"}),
        (2 * TiB, imgconv.Vmdk(), {"raw", FIXED, "qcow2", STREAM, "vdi", "vhdx"}),
        (
            129 * GiB,
            imgconv.Qcow2(cluster_size=512),
            {"raw", "qcow2", "vhd", "vmdk", "vdi", "vhdx"},
        ),
        (33 * TiB, imgconv.Vhd(subformat="fixed"), {"raw", "qcow2", STREAM, "vdi", "vhdx"}),
        (63 * TiB, imgconv.Vmdk(subformat="streamOptimized"), {"raw", "qcow2", "vdi", "vhdx"}),
        (65 * TiB, imgconv.Vhdx(), {"raw", "qcow2", "vdi"}),
        (513 * TiB, imgconv.Vdi(), {"raw", "qcow2"}),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_limits_are_checked_first_and_name_what_fits(
    roomy: Path, size: int, options: imgconv.Format, fits: set[str]
) -> None:
    raw = disks.empty(roomy / "d.raw", size)
    with pytest.raises(LimitExceeded) as caught:
        imgconv.convert(raw, roomy / "out", options=options)
    assert set(caught.value.fits) == fits
    assert str(options.max_size) in str(caught.value)
    assert [p.name for p in roomy.iterdir()] == ["d.raw"]


def test_just_below_the_limit_is_taken(roomy: Path) -> None:
    for size, options in [(2040 * GiB, imgconv.Vhd()), (2 * TiB - SECTOR, imgconv.Vmdk())]:
        raw = disks.last_byte(roomy / "d.raw", size)
        assert imgconv.convert(raw, roomy / "o", options=options).virtual_size == size


@pytest.mark.parametrize("threads", [0, -1, 257])
def test_the_number_of_threads_is_bounded(tmp_path: Path, raw: Path, threads: int) -> None:
    with pytest.raises(OptionError, match="from 1 to 256"):
        imgconv.convert(raw, tmp_path / "o.raw", threads=threads)


def test_cancelling_leaves_nothing(tmp_path: Path, raw: Path) -> None:
    with pytest.raises(imgconv.Cancelled):
        imgconv.convert(raw, tmp_path / "o.raw", cancelled=lambda: True)
    assert [p.name for p in tmp_path.iterdir()] == ["disk.raw"]


def test_an_error_of_the_watcher_is_the_callers_own(tmp_path: Path, raw: Path) -> None:
    def watch(progress: imgconv.Progress) -> None:
        raise KeyError("watcher")

    with pytest.raises(KeyError, match="watcher"):
        imgconv.convert(raw, tmp_path / "o.raw", progress=watch)
    assert [p.name for p in tmp_path.iterdir()] == ["disk.raw"]


def test_a_failing_clean_up_does_not_hide_the_cause(tmp_path: Path, raw: Path) -> None:
    """Close the sink's descriptors behind its back, then fail."""

    def sabotage(progress: imgconv.Progress) -> None:
        if progress.done == progress.total:
            for fd in os.listdir("/proc/self/fd"):
                link = Path("/proc/self/fd", fd)
                target = os.readlink(link) if link.is_symlink() else ""
                if str(tmp_path) in target and not target.endswith("disk.raw"):
                    os.close(int(fd))
            raise KeyError("the cause")

    with pytest.raises(KeyError, match="the cause") as caught:
        imgconv.convert(raw, tmp_path / "o.raw", progress=sabotage)
    assert "cleaning up failed" in caught.value.__notes__[0]


def test_imports_are_lazy() -> None:
    """`imgconv --version` pays for nothing it does not use."""
    script = (
        "import sys, imgconv.cli as c\n"
        "try: c.main(['--version'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'tqdm', '_cffi_backend', 'imgconv.api'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
