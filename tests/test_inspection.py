"""`info`, `map` and `convert --verify`, beside qemu-img."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import disks
from support.cli import assert_one_line_error
from support.cli import imgconv as command
from support.fickle import Fickle
from support.peers import assert_qemu_img, qemu_img, qemu_name
from support.peers import info as qemu_info

import imgconv
from imgconv.errors import UnsupportedCombination, VerificationFailed
from imgconv.units import KiB, MiB

SIZE = 9 * MiB
MADE = [
    ("raw", ""),
    ("qcow2", "cluster_size=4k,refcount_bits=64,lazy_refcounts=on"),
    ("qcow2", "compat=0.10"),
    ("qcow2", "extended_l2=on,compression_type=zstd"),
    ("vmdk", "subformat=monolithicSparse,adapter_type=lsilogic"),
    ("vmdk", "subformat=monolithicFlat"),
    ("vmdk", "subformat=streamOptimized"),
    ("vdi", ""),
    ("vhd", "subformat=dynamic,force_size=on"),
    ("vhd", "subformat=fixed,force_size=on"),
    ("vhdx", "subformat=dynamic,block_size=8M"),
    ("vhdx", "subformat=fixed"),
]
SAME_FOLDER = imgconv.ReadOptions(allow_references="same-folder")


def made(tmp_path: Path, format_name: str, options: str, *words: str) -> Path:
    raw = disks.holes(tmp_path / "disk.raw", SIZE)
    if format_name == "raw":
        return raw
    image = tmp_path / f"made.{format_name}"
    words += ("-o", options) if options else ()
    assert_qemu_img("convert", "-f", "raw", "-O", qemu_name(format_name), *words, raw, image)
    return image


def qemu_io(image: Path, *lines: str) -> None:
    words = [word for line in lines for word in ("-c", line)]
    subprocess.run(["qemu-io", *words, image], check=True, capture_output=True)


@pytest.mark.parametrize(("format_name", "options"), MADE)
def test_info_agrees_with_qemu(tmp_path: Path, format_name: str, options: str) -> None:
    image = made(tmp_path, format_name, options)
    found, theirs = imgconv.info(image), qemu_info(image, format_name)
    assert found.format == format_name
    assert found.virtual_size == theirs["virtual-size"]
    status = image.stat()
    assert (found.file_size, found.allocated) == (status.st_size, status.st_blocks * 512)
    specific = theirs.get("format-specific", {}).get("data", {})
    ours = found.options
    if format_name == "qcow2":
        assert ours["cluster_size"] == theirs["cluster-size"]
        names = {"compat": "compat", "refcount_bits": "refcount-bits"}
        if ours["compat"] == "1.1":
            names |= {"lazy_refcounts": "lazy-refcounts", "extended_l2": "extended-l2"}
        for name, their_name in names.items():
            assert ours[name] == specific[their_name]
        assert found.corrupt is specific.get("corrupt", False)
        assert ours["compression_type"] == specific.get("compression-type", "zlib")
    if format_name == "vmdk":
        assert ours["subformat"] == specific["create-type"]
    if format_name in ("vdi", "vhd", "vhdx") and "cluster-size" in theirs:
        assert ours["block_size"] == theirs["cluster-size"]
    with imgconv.open(image, source_format=format_name, read=SAME_FOLDER) as disk:
        assert disk.info == found


def test_info_of_what_cannot_be_read(tmp_path: Path) -> None:
    """Names are shown escaped, and nothing they name is there."""
    image = tmp_path / "top.qcow2"
    words = ("-u", "-b", "gone\x1b[31m\n.raw", "-F", "raw", "-f", "qcow2")
    assert_qemu_img("create", *words, image, "64M")
    with open(image, "r+b") as file:
        file.seek(79)
        file.write(b"\x03")  # dirty and corrupt
        file.seek(35)
        file.write(b"\x02")  # LUKS
    done = command("info", image)
    assert done.returncode == 0, done.stderr
    assert 'backing file: "gone\\x1b[31m\\n.raw" (raw), not opened' in done.stdout
    for word in ("encrypted: LUKS", "dirty: ", "corrupt: "):
        assert word in done.stdout
    found = json.loads(command("info", "--json", image).stdout)
    assert found["references"] == [
        {"role": "backing", "name": "gone\\x1b[31m\\n.raw", "format": "raw"}
    ]
    assert (found["encryption"], found["dirty"], found["corrupt"]) == ("LUKS", True, True)
    assert_one_line_error(command("checksum", image), "encrypted")


def test_info_of_snapshots_and_extents(tmp_path: Path) -> None:
    image = made(tmp_path, "qcow2", "")
    for name in ("one", "two"):
        assert_qemu_img("snapshot", "-c", name, image)
    theirs = qemu_info(image, "qcow2")["snapshots"]
    ours = imgconv.info(image).snapshots
    assert [(s.id, s.name, s.date, s.vm_state_size) for s in ours] == [
        (s["id"], s["name"], s["date-sec"], s["vm-state-size"]) for s in theirs
    ]
    assert {s.disk_size for s in ours} == {SIZE}
    split = tmp_path / "split.vmdk"
    words = ("-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse")
    assert_qemu_img("create", *words, split, "5G")
    (tmp_path / "split-s002.vmdk").unlink()
    names = [r.name for r in imgconv.info(split).references if r.role == "extent"]
    assert names == [f"split-s00{i}.vmdk" for i in (1, 2, 3)]
    part = imgconv.info(tmp_path / "split-s001.vmdk")
    assert part.virtual_size == 2 << 30
    assert "a part of a disk" in part.warnings[0]


def rows(entries: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    """Yield stretches, neighbours of one kind as one; an offset is of moment for data."""
    last: list[Any] | None = None
    for entry in entries:
        # qemu-img calls a hole in a flat extent both data and zero.
        data = entry["data"] and not entry["zero"]
        kind = [entry["depth"], entry["present"], entry["zero"], data]
        at = entry.get("offset") if data else None
        start, stop = entry["start"], entry["start"] + entry["length"]
        if last is not None and last[2:6] == kind:
            expected = None if last[6] is None else last[6] + start - last[0]
            if at == expected:
                last[1] = stop
                continue
        if last is not None:
            yield tuple(last)
        last = [start, stop, *kind, at]
    if last is not None:
        yield tuple(last)


def assert_maps_alike(image: Path, format_name: str, *words: str) -> None:
    done = qemu_img("map", "-f", qemu_name(format_name), "--output=json", *words, image)
    assert done.returncode == 0, done.stderr
    allow = ("--allow-references", "same-folder")
    ours = command("map", "--json", "-f", format_name, *allow, *words, image)
    assert ours.returncode == 0, ours.stderr
    assert list(rows(json.loads(ours.stdout))) == list(rows(json.loads(done.stdout)))
    table = qemu_img("map", "-f", qemu_name(format_name), *words, image)
    if table.returncode == 0:
        mine = command("map", "-f", format_name, *allow, *words, image)
        assert mine.stdout == table.stdout


# A fixed VHD is data throughout for us; qemu asks for holes in its file as well. Of a VHDX it
# tells no offsets.
MAPPED = [row for row in MADE if "fixed" not in row[1] and row[0] != "vhdx"]


@pytest.mark.parametrize(("format_name", "options"), MAPPED)
def test_map_agrees_with_qemu(tmp_path: Path, format_name: str, options: str) -> None:
    image = made(tmp_path, format_name, options)
    assert_maps_alike(image, format_name)
    assert_maps_alike(image, format_name, "-s", "1M", "-l", "3M")


def test_map_of_compressed_clusters(tmp_path: Path) -> None:
    image = made(tmp_path, "qcow2", "", "-c")
    assert_maps_alike(image, "qcow2")
    with imgconv.open(image) as disk:
        kinds = {(entry.compressed, entry.data) for entry in disk.map()}
    assert kinds == {(True, True), (False, False)}
    assert "compressed      -" in command("map", image).stdout


def test_map_of_a_chain(tmp_path: Path) -> None:
    """Zeros said and nothing said, a lower disk that ends earlier, subclusters."""
    made(tmp_path, "raw", "")
    middle, top = tmp_path / "middle.qcow2", tmp_path / "top.qcow2"
    for image, below, kind, options in (
        (middle, "disk.raw", "raw", "cluster_size=4k"),
        (top, "middle.qcow2", "qcow2", "extended_l2=on"),
    ):
        words = ("-f", "qcow2", "-o", options, "-b", below, "-F", kind)
        assert_qemu_img("create", *words, image, "12M")
    qemu_io(middle, "write 1M 64k", "write -z 2M 256k", "write 9500k 100k")
    qemu_io(top, "write 1100k 2k", "write -z 2100k 8k", "write 11M 64k")
    assert_maps_alike(middle, "qcow2")
    assert_maps_alike(top, "qcow2")


def test_map_of_zeros_said(tmp_path: Path) -> None:
    image = tmp_path / "zeros.qcow2"
    assert_qemu_img("create", "-f", "qcow2", image, "64M")
    qemu_io(image, "write 0 1M", "write -z 512k 128k", "write -z 32M 1M")
    assert_maps_alike(image, "qcow2")
    with imgconv.open(image) as disk:
        said = [entry for entry in disk.map() if entry.zero and entry.present]
    assert [(e.start, e.length) for e in said] == [(512 * KiB, 128 * KiB), (32 * MiB, MiB)]


def test_map_beyond_the_end_is_empty(tmp_path: Path) -> None:
    image = made(tmp_path, "raw", "")
    assert command("map", "--json", "-s", "1G", image).stdout == "[]\n"


VERIFIED = ["raw", "qcow2", "vhd", "vmdk", "vdi", "raw.zst", "raw.gz"]


@pytest.mark.parametrize("name", [f"out.{name}" for name in VERIFIED])
def test_verified_files(tmp_path: Path, name: str) -> None:
    raw = made(tmp_path, "raw", "")
    report = imgconv.convert(raw, tmp_path / name, verify=True)
    assert report.verified
    assert not imgconv.convert(raw, tmp_path / name).verified
    (tmp_path / name).write_bytes(b"before")
    with pytest.raises(VerificationFailed, match="differs from fickle at offset 0"):
        imgconv.convert(Fickle(), tmp_path / name, verify=True)
    assert (tmp_path / name).read_bytes() == b"before"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["disk.raw", name])


def test_verified_objects(tmp_path: Path) -> None:
    raw = made(tmp_path, "raw", "")
    url = f"file://{tmp_path}/object.qcow2"
    assert imgconv.convert(raw, url, verify=True).verified
    with pytest.raises(VerificationFailed) as caught:
        imgconv.convert(Fickle(), url, verify=True, clobber=True)
    assert caught.value.__notes__ == ["the object was removed"]
    assert not (tmp_path / "object.qcow2").exists()


def test_what_cannot_be_verified_is_refused_beforehand(tmp_path: Path) -> None:
    raw = made(tmp_path, "raw", "")
    done = command("--verify", raw, "-", "-O", "raw")
    assert_one_line_error(done, "cannot verify what goes to a stream", status=2)
    with pytest.raises(UnsupportedCombination, match="a ticket"):
        imgconv.convert(raw, f"ticket://{tmp_path}/ticket", options="raw", verify=True)
