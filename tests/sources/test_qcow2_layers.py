"""QCOW2 over backing files and external data files: as qemu reads them, by permission only."""

import random
import struct
import subprocess
from pathlib import Path

import pytest
from support import disks
from support.cli import assert_one_line_error
from support.cli import imgconv as command
from support.peers import assert_qemu_img
from support.reading import as_qemu_reads_it

import imgconv
from imgconv import ReadOptions
from imgconv.errors import ImageMalformed, ImageUnsupported, SourceUnreadable
from imgconv.units import KiB, MiB

HERE = ReadOptions(allow_references="same-folder")
SIZE = 5 * MiB + 3 * KiB


def create(image: Path, size: int | None = None, *words: str) -> Path:
    sizes = [] if size is None else [str(size)]
    assert_qemu_img("create", "-q", "-f", "qcow2", *words, image, *sizes)
    return image


def qemu_io(image: Path, *lines: str) -> None:
    words = [word for line in lines for word in ("-c", line)]
    done = subprocess.run(
        ["qemu-io", "-f", "qcow2", *words, image], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def scribble(image: Path, size: int, seed: int) -> None:
    """Write, zero and discard here and there, on no boundary."""
    rng, lines = random.Random(seed), []
    for _ in range(25):
        start = rng.randrange(size // 512) * 512
        length = min(rng.choice([512, 3 * KiB, 64 * KiB, 300 * KiB]), size - start)
        verb = rng.choice(
            [f"write -P {rng.randrange(1, 255)}", "write -z", "write -z -u", "discard"]
        )
        lines.append(f"{verb} {start} {length}")
    qemu_io(image, *lines)


def assert_as_qemu_reads_it(image: Path, read: ReadOptions = HERE, threads: int = 3) -> bytes:
    return as_qemu_reads_it(image, "qcow2", read, threads)


@pytest.mark.parametrize(
    "options",
    [
        "compat=v3",
        "compat=0.10",
        "extended_l2=on",
        "cluster_size=512",
        "cluster_size=2M",
        "extended_l2=on,cluster_size=16k",
    ],
)
def test_a_chain_of_three(tmp_path: Path, options: str) -> None:
    """Each larger than what it stands on."""
    raw = disks.random_runs(tmp_path / "base.raw", SIZE)
    base = tmp_path / "base.qcow2"
    assert_qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", raw, base)
    middle = create(tmp_path / "middle.qcow2", SIZE + MiB, "-b", str(base.name), "-F", "qcow2")
    scribble(middle, SIZE + MiB - 3 * KiB, 1)
    words = "-b", middle.name, "-F", "qcow2", "-o", options
    top = create(tmp_path / "top.qcow2", SIZE + 2 * MiB, *words)
    scribble(top, SIZE + 2 * MiB - 3 * KiB, 2)
    assert_as_qemu_reads_it(top)
    assert_as_qemu_reads_it(middle, threads=1)


def test_a_disk_smaller_than_what_it_stands_on(tmp_path: Path) -> None:
    disks.dense(tmp_path / "base.raw", SIZE)
    top = create(tmp_path / "top.qcow2", MiB, "-b", "base.raw", "-F", "raw")
    qemu_io(top, "write -P 3 64k 64k")
    assert len(assert_as_qemu_reads_it(top)) == MiB


def test_compressed_clusters_over_a_backing_file(tmp_path: Path) -> None:
    disks.dense(tmp_path / "base.raw", SIZE)
    upper = disks.random_runs(tmp_path / "upper.raw", SIZE)
    top = tmp_path / "top.qcow2"
    words = "-c", "-B", "base.raw", "-F", "raw", "-f", "raw", "-O", "qcow2"
    assert_qemu_img("convert", *words, upper, top)
    qemu_io(top, "write -z 1M 64k", "write -P 9 1100k 512")
    assert_as_qemu_reads_it(top)


@pytest.mark.parametrize("lower", ["vmdk", "vdi", "vhd"])
def test_over_other_formats(tmp_path: Path, lower: str) -> None:
    raw = disks.random_runs(tmp_path / "base.raw", SIZE)
    imgconv.convert(raw, tmp_path / f"base.{lower}")
    name = {"vhd": "vpc"}.get(lower, lower)
    top = create(tmp_path / "top.qcow2", SIZE, "-b", f"base.{lower}", "-F", name)
    scribble(top, SIZE, 3)
    assert_as_qemu_reads_it(top)


def test_a_backing_file_of_an_unsaid_format_is_looked_at(tmp_path: Path) -> None:
    base = create(tmp_path / "base.qcow2", SIZE)
    scribble(base, SIZE - 3 * KiB, 4)
    top = create(tmp_path / "top.qcow2", None, "-b", "base.qcow2", "-F", "qcow2")
    said, content = b"\xe2\x79\x2a\xca", top.read_bytes()
    assert said in content
    top.write_bytes(content.replace(said, b"none"))  # an extension that nobody knows
    assert_as_qemu_reads_it(top)


def test_a_snapshot_is_compared_with_a_disk_of_another_format(tmp_path: Path) -> None:
    """What is said of the one disk is not said of the other."""
    raw, image = disks.dense(tmp_path / "before.raw", MiB), tmp_path / "disk.img"
    assert_qemu_img("convert", "-O", "qcow2", "-f", "raw", raw, image)
    assert_qemu_img("snapshot", "-c", "before", image)
    qemu_io(image, "write -P 3 0 64k")
    for words, status in (((), 1), (("--snapshot", "before"), 0)):
        done = command("compare", "-f", "qcow2", *words, image, raw)
        assert (done.returncode, done.stderr) == (status, "")
    assert command("compare", "-f", "raw", image, raw).returncode == 1
    assert command("compare", raw, image).returncode == 2  # named like a raw disk
    assert command("compare", "-F", "qcow2", raw, image).returncode == 1
    assert command("compare", "-f", "raw", "-F", "raw", image, image).returncode == 0
    assert command("compare", "-f", "qcow2", "-F", "raw", image, image).returncode == 1


def test_a_snapshot_of_a_disk_over_another(tmp_path: Path) -> None:
    disks.dense(tmp_path / "base.raw", SIZE)
    top = create(tmp_path / "top.qcow2", None, "-b", "base.raw", "-F", "raw")
    qemu_io(top, "write -P 1 1M 100k")
    before = assert_as_qemu_reads_it(top)
    assert_qemu_img("snapshot", "-c", "before", top)
    qemu_io(top, "write -P 2 1M 300k", "write -z 0 64k")
    then = ReadOptions(allow_references="same-folder", snapshot="before")
    with imgconv.open(top, read=then) as disk:
        assert disk.read(0, disk.size) == before
    assert assert_as_qemu_reads_it(top) != before


@pytest.mark.parametrize("options", ["data_file_raw=on", "data_file_raw=off", "extended_l2=on"])
def test_an_external_data_file(tmp_path: Path, options: str) -> None:
    words = "-o", f"data_file={tmp_path}/data.raw,{options}"
    image = create(tmp_path / "disk.qcow2", SIZE, *words)
    scribble(image, SIZE - 3 * KiB, 5)
    assert_as_qemu_reads_it(image, ReadOptions(allow_references=(str(tmp_path / "data.raw"),)))
    done = command(image, tmp_path / "out.raw")
    assert_one_line_error(done, "needs its data file", "not allowed")


def test_a_data_file_and_a_backing_file(tmp_path: Path) -> None:
    disks.dense(tmp_path / "base.raw", SIZE)
    words = "-b", "base.raw", "-F", "raw", "-o", f"data_file={tmp_path}/data.raw"
    image = create(tmp_path / "disk.qcow2", None, *words)
    scribble(image, SIZE - 3 * KiB, 6)
    assert_as_qemu_reads_it(image, ReadOptions(allow_references=(str(tmp_path),)))


def test_no_file_is_opened_unless_it_is_allowed(tmp_path: Path) -> None:
    base = disks.dense(tmp_path / "base.raw", SIZE)
    top = create(tmp_path / "top.qcow2", None, "-b", str(base), "-F", "raw")
    done = command(top, tmp_path / "out.raw")
    assert_one_line_error(done, "needs its backing file", "base.raw", "not allowed")
    for refused in (HERE, ReadOptions(allow_references=(str(top),))):
        with pytest.raises(ImageUnsupported, match="not allowed"):
            imgconv.open(top, read=refused)  # a path is no plain name
    for allowed in (base, tmp_path):
        done = command(top, tmp_path / "out.raw", "--allow-references", str(allowed))
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out.raw").read_bytes() == base.read_bytes()


@pytest.mark.parametrize("named", ["json:{}", "nbd://host/x", "fd:3", "/etc/passwd", "../x"])
def test_names_are_names_of_files_only(tmp_path: Path, named: str) -> None:
    top = create(tmp_path / "top.qcow2", MiB, "-u", "-b", named, "-F", "raw")
    with pytest.raises((ImageUnsupported, SourceUnreadable)):
        imgconv.open(top, read=HERE)
    done = command(top, tmp_path / "out.raw", "--allow-references", "same-folder")
    assert_one_line_error(done)
    assert not (tmp_path / "out.raw").exists()


def test_links_are_not_followed_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    disks.dense(tmp_path / "secret.raw", MiB)
    (tmp_path / "in" / "base.raw").symlink_to(tmp_path / "secret.raw")
    top = create(tmp_path / "in" / "top.qcow2", MiB, "-u", "-b", "base.raw", "-F", "raw")
    with pytest.raises(SourceUnreadable, match=r"base\.raw"):
        imgconv.open(top, read=HERE)


def test_chains_that_bite_their_tails(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a"), ("c", "c")):
        words = "-u", "-b", f"{other}.qcow2", "-F", "qcow2"
        create(tmp_path / f"{name}.qcow2", MiB, *words)
    for name in ("a", "c"):
        with pytest.raises(ImageUnsupported, match="needs itself"):
            imgconv.open(tmp_path / f"{name}.qcow2", read=HERE)


def test_a_chain_too_long(tmp_path: Path) -> None:
    create(tmp_path / "0.qcow2", MiB)
    content = create(tmp_path / "x.qcow2", MiB, "-u", "-b", "00.qcow2", "-F", "qcow2")
    template = content.read_bytes()
    for number in range(70):
        named = template.replace(b"00.qcow2", f"{number:02}.qcow2".encode())
        (tmp_path / f"{number + 1:02}.qcow2").write_bytes(named)
    (tmp_path / "0.qcow2").rename(tmp_path / "00.qcow2")
    with imgconv.open(tmp_path / "60.qcow2", read=HERE) as disk:
        assert not any(disk.read(0, MiB))
    with pytest.raises(ImageUnsupported, match="more than 64 images"):
        imgconv.open(tmp_path / "70.qcow2", read=HERE)


def test_formats_that_are_not_read(tmp_path: Path) -> None:
    disks.dense(tmp_path / "base.raw", MiB)
    for said in ("qed", "a\nb"):
        top = create(tmp_path / "top.qcow2", MiB, "-u", "-b", "base.raw", "-F", "qed")
        content = top.read_bytes().replace(b"\xe2\x79\x2a\xca\0\0\0\x03qed", _extension(said))
        top.write_bytes(content)
        with pytest.raises(ImageUnsupported, match="to be in format"):
            imgconv.open(top, read=HERE)


def _extension(said: str) -> bytes:
    return struct.pack(">II", 0xE2792ACA, 3) + said.encode()


def test_backing_names_that_cannot_be(tmp_path: Path) -> None:
    top = create(tmp_path / "top.qcow2", MiB, "-u", "-b", "base.raw", "-F", "raw")
    whole = top.read_bytes()
    for at, value in ((8, struct.pack(">Q", 1 << 40)), (16, struct.pack(">I", 1024))):
        top.write_bytes(whole[:at] + value + whole[at + len(value) :])
        with pytest.raises(ImageMalformed, match="backing file's name"):
            imgconv.open(top, read=HERE)
