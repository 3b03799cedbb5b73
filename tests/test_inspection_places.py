"""`info`, `map` and `convert --verify` of what is no plain file: devices, objects, and extents
of ESX."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support import disks, esx
from support.cli import imgconv as command
from support.fickle import Fickle
from support.mounts import loop_device
from support.peers import qemu_img
from support.seaweed import BUCKET, Seaweed

import imgconv
from imgconv.errors import ObjectMissing, SourceError, VerificationFailed
from imgconv.stores.s3 import S3
from imgconv.units import KiB, MiB

SIZE = 9 * MiB
FORMATS = ("raw", "qcow2", "vmdk", "raw.zst")
HERE = imgconv.ReadOptions(allow_references="same-folder")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return disks.holes(tmp_path / "disk.raw", SIZE)


@pytest.fixture
def s3(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> S3:
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    return S3(endpoint_url=seaweed.endpoint_url, region="us-east-1", profile="seaweedfs")


def assert_looks_like(file: Path, url: str, store: S3 | None) -> None:
    """An object is described as the file is, but for what only a file has."""
    ours = imgconv.info(url, store=store)
    theirs = imgconv.info(file)
    assert ours == replace(theirs, source=ours.source, allocated=ours.allocated)
    with imgconv.open(url, store=store) as one, imgconv.open(file) as other:
        if theirs.format != "raw":  # whose holes no store tells of
            for mine, other_one in zip(one.map(), other.map(), strict=True):
                assert mine == replace(other_one, file=mine.file)
        assert one.read(0, SIZE) == other.read(0, SIZE)


@pytest.mark.parametrize("name", FORMATS)
def test_objects_in_s3(tmp_path: Path, raw: Path, s3: S3, name: str) -> None:
    url = f"s3://{BUCKET}/{tmp_path.name}/disk.{name}"
    report = imgconv.convert(raw, url, options=name, store=s3, verify=True, identity="x")
    assert report.verified
    (tmp_path / "out").mkdir()
    imgconv.convert(raw, tmp_path / "out" / f"disk.{name}", identity="x")
    assert_looks_like(tmp_path / "out" / f"disk.{name}", url, s3)
    words = "--endpoint-url", str(s3.endpoint_url), "--region", "us-east-1"
    found = json.loads(command("info", "--json", url, *words).stdout)
    assert (found["format"], found["virtual_size"], found["allocated"]) == (name, SIZE, None)
    assert json.loads(command("map", "--json", url, *words).stdout)


def test_an_object_that_is_wrong_is_removed(tmp_path: Path, s3: S3) -> None:
    url = f"s3://{BUCKET}/{tmp_path.name}/wrong.qcow2"
    with pytest.raises(VerificationFailed, match="differs from fickle") as caught:
        imgconv.convert(Fickle(), url, store=s3, verify=True)
    assert caught.value.__notes__ == ["the object was removed"]
    with pytest.raises(ObjectMissing):
        imgconv.open(url, store=s3)


@pytest.mark.parametrize("name", ["raw", "qcow2", "vhdx"])
def test_objects_in_folders(tmp_path: Path, raw: Path, name: str) -> None:
    for folder in ("store", "out"):
        (tmp_path / folder).mkdir()
    url = f"file://{tmp_path}/store/disk.{name}"
    assert imgconv.convert(raw, url, options=name, verify=True, identity="x").verified
    imgconv.convert(raw, tmp_path / "out" / f"disk.{name}", identity="x")
    assert_looks_like(tmp_path / "out" / f"disk.{name}", url, None)


def test_a_device_that_was_written(tmp_path: Path, raw: Path, root: None) -> None:
    """It may be larger than the disk; what is behind that is nobody's."""
    old = disks.write(tmp_path / "device", SIZE + MiB, {0: b"\xff" * (SIZE + MiB)})
    with loop_device(old) as device:
        assert imgconv.convert(raw, device, options="raw", verify=True).verified
        done = command(raw, device, "-O", "raw", "--verify")
        assert done.returncode == 0, done.stderr
        assert ", verified; " in done.stdout
        with pytest.raises(VerificationFailed, match="differs from fickle at offset 0"):
            imgconv.convert(Fickle(), device, options="raw", verify=True)


@pytest.mark.parametrize("name", ["raw", "qcow2", "vmdk", "vdi", "vhdx"])
def test_a_device_with_an_image(tmp_path: Path, raw: Path, root: None, name: str) -> None:
    image = tmp_path / f"image.{name}"
    imgconv.convert(raw, image)
    with open(image, "r+b") as file:
        file.truncate(-(-image.stat().st_size // (64 * KiB)) * 64 * KiB)
    with loop_device(image, "--read-only") as device:
        ours, theirs = imgconv.info(device), imgconv.info(image)
        assert ours == replace(theirs, source=device, allocated=None)
        done = command("map", "--json", "-f", name, device)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        words = "map", "--output=json", "-f", name
        peer = json.loads(qemu_img(*words, device).stdout)
        if name == "qcow2":
            keys = "start", "length", "data", "zero"
            assert [[row[key] for key in keys] for row in told] == [
                [row[key] for key in keys] for row in peer
            ]
        assert told[-1]["start"] + told[-1]["length"] == theirs.virtual_size


def test_extents_of_esx(tmp_path: Path) -> None:
    (tmp_path / "cowd.vmdk").write_bytes(esx.cowd({5: b"a" * 512, 4097: b"c" * 512}, 9000))
    content = esx.sesparse({0: 3 << 60, 7: 3 << 60 | 1 << 48}, [b"a" * 4096] * 2, 800)
    (tmp_path / "sesparse.vmdk").write_bytes(content)
    for name, kind, sectors in (("cowd", "vmfsSparse", 9000), ("sesparse", "seSparse", 800)):
        part = imgconv.info(tmp_path / f"{name}.vmdk")
        assert part.virtual_size == sectors * 512
        assert "a part of a disk" in part.warnings[0]
        line = f'RW {sectors} {"VMFSSPARSE" if name == "cowd" else "SESPARSE"} "{name}.vmdk"'
        lines = "# Disk DescriptorFile", "version=1", "CID=12345678", "parentCID=ffffffff"
        image = tmp_path / f"whole-{name}.vmdk"
        image.write_text("\n".join((*lines, f'createType="{kind}"', line, "")))
        found = imgconv.info(image)
        assert (found.virtual_size, found.options["subformat"]) == (sectors * 512, kind)
        assert [reference.name for reference in found.references] == [f"{name}.vmdk"]
        with pytest.raises(SourceError, match="not allowed"):
            imgconv.open(image)
        with imgconv.open(image, read=HERE) as disk:
            rows = list(disk.map())
            whole = disk.read(0, disk.size)
        own = (tmp_path / f"{name}.vmdk").read_bytes()
        data = [row for row in rows if row.data]
        assert len(data) == 2
        for row in data:
            assert row.file == str(tmp_path / f"{name}.vmdk")
            assert row.offset is not None
            place = slice(row.offset, row.offset + row.length)
            assert own[place] == whole[row.start : row.start + row.length]
