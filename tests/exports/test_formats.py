"""Every format straight into a store: the object is the file that would have been written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support import disks
from support.cli import assert_one_line_error, imgconv
from support.peers import assert_same_guest
from support.seaweed import BUCKET

import imgconv as library
from imgconv.stores import Store
from imgconv.stores.s3 import S3
from imgconv.units import MiB

FORMATS = {
    "d.raw": library.Raw(),
    "d.qcow2": library.Qcow2(),
    "d4k.qcow2": library.Qcow2(cluster_size=4096),
    "d.vhd": library.Vhd(),
    "fixed.vhd": library.Vhd(subformat="fixed"),
    "d.vmdk": library.Vmdk(),
    "stream.vmdk": library.Vmdk(subformat="streamOptimized"),
    "d.vdi": library.Vdi(),
    "fixed.vdi": library.Vdi(subformat="fixed"),
    "d.vhdx": library.Vhdx(),
    "fixed.vhdx": library.Vhdx(subformat="fixed"),
    "small.qcow2": library.Qcow2(compress="fast"),
    "d.raw.gz": library.RawGz(compress="fast"),
    "d.raw.zst": library.RawZst(compress="fast"),
    "d.tar.gz": library.RawTarGz(compress="fast"),
}


@pytest.fixture(params=["s3", "oss", "file"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[Store | None, Callable[[str], str]]:
    """A kind of store, and what makes URLs in it."""
    if request.param == "file":
        (tmp_path / "bucket").mkdir()
        return None, lambda key: f"file://{tmp_path}/bucket/{key}"
    prefix = f"{request.param}://{BUCKET}/{tmp_path.name}"
    return request.getfixturevalue(request.param), lambda key: f"{prefix}/{key}"


def fetched(url: str, store: Store | None, path: Path) -> Path:
    """Read an object back, as a raw disk is read; the last sector may be short."""
    with library.open(url, source_format="raw", store=store) as disk, open(path, "wb") as file:
        for at_offset in range(0, disk.size, 8 * MiB):
            file.write(disk.read(at_offset, 8 * MiB))
    return path


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disks.random_runs(tmp_path_factory.mktemp("disk") / "disk.raw", 48 * MiB)


@pytest.mark.parametrize("name", FORMATS)
def test_the_object_is_the_file(
    tmp_path: Path,
    disk: Path,
    name: str,
    place: tuple[Store | None, Callable[[str], str]],
) -> None:
    store, url_of = place
    options = FORMATS[name]
    part_size = 5 * MiB if store is not None and store.scheme == "s3" else MiB
    report = library.convert(
        disk,
        url_of(name),
        options=options,
        store=store,
        upload=library.UploadOptions(part_size=part_size),
    )
    library.convert(disk, tmp_path / name, options=options)
    got = fetched(url_of(name), store, tmp_path / f"got-{name}")
    expected = (tmp_path / name).read_bytes()
    assert got.read_bytes()[: len(expected)] == expected
    if not options.name.startswith("raw."):  # QEMU unpacks nothing
        assert_same_guest(disk, got, options.name)
    assert report.upload is not None
    assert report.upload.size == report.output_size == len(expected)
    assert report.upload.store_verified
    assert len(report.upload.parts) > 3
    assert library.unfinished_uploads(url_of(""), store=store) == ()


class TestCommandLine:
    """The same by people."""

    @pytest.fixture
    def raw(self, tmp_path: Path) -> Path:
        return disks.holes(tmp_path / "disk.raw", 23 * MiB)

    def options(self, s3: S3) -> list[str]:
        assert s3.endpoint_url is not None
        return ["--endpoint-url", s3.endpoint_url, "--region", "us-east-1"]

    def test_in_url_is_enough(self, s3: S3, tmp_path: Path, raw: Path) -> None:
        url = f"s3://{BUCKET}/{tmp_path.name}/o.raw"
        done = imgconv(raw, url, *self.options(s3), "--part-size", "5M", "-p")
        assert done.returncode == 0, done.stderr
        for word in ("sent ", "object 23 MiB", "5 parts", "CRC-64/NVME "):
            assert word in done.stdout
        assert "wire " in done.stderr
        again = imgconv("compare", raw, url, *self.options(s3))
        assert (again.returncode, again.stdout) == (0, "Images are identical.\n")

    def test_a_difference_is_found(self, s3: S3, tmp_path: Path, raw: Path) -> None:
        url = f"s3://{BUCKET}/{tmp_path.name}/o.raw"
        assert imgconv(raw, url, *self.options(s3)).returncode == 0
        with open(raw, "r+b") as file:
            file.seek(20 * MiB + 7)
            file.write(b"\xff")
        done = imgconv("compare", raw, url, *self.options(s3))
        assert done.returncode == 1
        assert done.stdout == f"Content mismatch at offset {20 * MiB + 7}!\n"

    def test_an_object_is_only_replaced_on_demand(
        self, s3: S3, tmp_path: Path, raw: Path
    ) -> None:
        url = f"s3://{BUCKET}/{tmp_path.name}/o.vmdk"
        assert imgconv(raw, url, *self.options(s3)).returncode == 0
        assert_one_line_error(imgconv(raw, url, *self.options(s3)), url, "exists")
        assert imgconv(raw, url, *self.options(s3), "--overwrite").returncode == 0

    def test_the_receipt(self, s3: S3, tmp_path: Path, raw: Path) -> None:
        url = f"s3://{BUCKET}/{tmp_path.name}/o.qcow2"
        path = tmp_path / "receipt"
        more = ["--receipt", str(path), "--store-receipt", "--json"]
        done = imgconv(raw, url, *self.options(s3), *more)
        assert done.returncode == 0, done.stderr
        receipt, shown = json.loads(path.read_text()), json.loads(done.stdout)
        assert shown["upload"]["parts"] == len(receipt["upload"]["parts"]) > 0
        assert receipt["upload"]["size"] == receipt["output_size"]
        assert receipt["options"]["cluster_size"] == 65536
        part = receipt["upload"]["parts"][0]
        assert set(part) == {"number", "offset", "length", "etag", "crc", "origin"}
        with library.open(f"{url}.receipt.json", source_format="raw", store=s3) as stored:
            assert json.loads(stored.read(0, stored.size).rstrip(b"\0")) == receipt

    def test_unfinished_uploads_are_listed_and_aborted(
        self, s3: S3, tmp_path: Path, raw: Path
    ) -> None:
        prefix = f"s3://{BUCKET}/{tmp_path.name}"
        store = s3.open(BUCKET)
        store.begin(f"{tmp_path.name}/lost", {})
        store.close()
        listed = imgconv("uploads", "list", prefix, *self.options(s3))
        assert f"{prefix}/lost" in listed.stdout
        spared = imgconv("uploads", "abort", prefix, *self.options(s3))
        assert "aborted 0" in spared.stderr
        done = imgconv("uploads", "abort", prefix, "--older-than", "0", *self.options(s3))
        assert (done.returncode, "aborted 1" in done.stderr) == (0, True)
        listed = imgconv("uploads", "list", prefix, "--json", *self.options(s3))
        assert json.loads(listed.stdout) == []

    def test_no_temporary_file_is_made(self, s3: S3, tmp_path: Path, raw: Path) -> None:
        url = f"s3://{BUCKET}/{tmp_path.name}/o.vdi"
        (tmp_path / "home").mkdir()
        nowhere = {
            name: str(tmp_path / "home") for name in ("HOME", "TMPDIR", "XDG_STATE_HOME")
        }
        done = imgconv(raw, url, *self.options(s3), cwd=tmp_path / "home", **nowhere)
        assert done.returncode == 0, done.stderr
        assert list((tmp_path / "home").iterdir()) == []

    @pytest.mark.parametrize(
        ("arguments", "words", "status"),
        [
            (["s3://bucket", "-O", "raw"], ["needs a bucket and a key"], 2),
            (["ftp://host/x.raw"], ["unknown kind of store ftp://", "s3://"], 2),
            (["s3://b/k.raw", "--store", "bogus=1"], ["bogus", "endpoint_url"], 2),
            (["out.raw", "--endpoint-url", "http://x"], ["need exactly one"], 2),
            (["s3://b/k.raw", "--journal", "j"], ["only with resume"], 2),
            (["s3://b/k.raw", "--part-size", "1M"], ["part_size=1048576", "5242880"], 2),
            (["s3://b/k.raw", "--concurrency", "0"], ["concurrency=0"], 2),
            (["s3://no-such-bucket/k.raw"], ["no-such-bucket"], 1),
        ],
        ids=lambda v: v[0].replace("/", "~") if isinstance(v, list) else str(v),
    )
    def test_wrong_use_is_one_line(
        self,
        s3: S3,
        tmp_path: Path,
        raw: Path,
        arguments: list[str],
        words: list[str],
        status: int,
    ) -> None:
        more = self.options(s3) if arguments[0].startswith("s3://no-such") else []
        done = imgconv(raw, *arguments, *more, cwd=tmp_path)
        assert_one_line_error(done, *words, status=status)
