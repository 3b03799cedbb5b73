"""The local store: the contract, and what a folder owes beyond it."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from support import disks
from support.mounts import mounted

from imgconv.errors import (
    ContentDamaged,
    ObjectChanged,
    ObjectMissing,
    OutputExists,
    StoreCannot,
    StoreError,
    StoreRefused,
    UploadGone,
    UsageError,
)
from imgconv.native import CRC64_NVME
from imgconv.objectstore import ObjectInfo, Part, PartStore, Upload
from imgconv.stores import store_from_text
from imgconv.stores.local import HIDDEN, Local
from imgconv.testing import PartStoreConformance, content_of, finish, read, send
from imgconv.units import GiB, KiB, MiB

ROUNDS = 10


class TestConformance(PartStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[PartStore]:
        store = Local().open(str(tmp_path))
        yield store
        store.close()
        assert list(tmp_path.iterdir()) == [], "the last upload takes the hidden folder along"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "exports"
    folder.mkdir()
    return folder


@pytest.fixture
def store(folder: Path) -> PartStore:
    return store_from_text("file").open(str(folder))


def hidden(folder: Path, upload: Upload) -> Path:
    return folder / HIDDEN / upload.id


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def known(store: PartStore, key: str) -> ObjectInfo:
    info = store.head(key)
    assert info is not None
    return info


def test_zeros_of_parts_and_objects_are_holes(store: PartStore, folder: Path) -> None:
    content = bytearray(32 * MiB)
    content[5 * MiB : 5 * MiB + 10] = b"0123456789"
    content[-1] = 1
    upload = store.begin("disk.raw", {})
    parts = [send(store, upload, 1, bytes(content)), send(store, upload, 2, bytes(9 * MiB))]
    assert allocated(hidden(folder, upload) / "00001") <= 200 * KiB
    assert allocated(hidden(folder, upload) / "00002") <= 4 * KiB
    finish(store, upload, parts, bytes(content) + bytes(9 * MiB))
    assert (folder / "disk.raw").read_bytes() == bytes(content) + bytes(9 * MiB)
    assert allocated(folder / "disk.raw") <= 200 * KiB


def test_copying_holes_takes_no_time_and_no_room(store: PartStore, folder: Path) -> None:
    size = 100 * GiB
    disks.write(folder / "zeros", size, {70 * GiB: b"data"})
    upload, began = store.begin("disk.raw", {}), time.monotonic()
    parts = [
        store.copy_part(upload, 1, "zeros", 0, 60 * GiB),
        store.copy_part(upload, 2, "zeros", 70 * GiB, GiB),
    ]
    crc = CRC64_NVME.zeros(CRC64_NVME.update(b"data", CRC64_NVME.zeros(0, 60 * GiB)), GiB - 4)
    info = store.complete(upload, parts, size=61 * GiB, crc=crc, exclusive=True)
    assert time.monotonic() - began < 10
    assert (info.size, info.crc) == (61 * GiB, crc)
    assert allocated(folder / "disk.raw") <= 200 * KiB
    with closing(store.open("disk.raw")) as reader:
        buffer = bytearray(6)
        reader.read_into(60 * GiB - 1, memoryview(buffer))
    assert buffer == b"\0data\0"


def test_what_others_made_is_an_object_too(store: PartStore, folder: Path) -> None:
    (folder / "plain").write_bytes(b"abc")
    info = known(store, "plain")
    assert (info.size, info.crc, dict(info.metadata)) == (3, None, {})
    with closing(store.open("plain")) as reader:
        (folder / "plain").write_bytes(b"abd")
        with pytest.raises(ObjectChanged):
            reader.read_into(0, memoryview(bytearray(3)))
    assert known(store, "plain").etag != info.etag


def test_checksum_and_metadata_are_of_the_very_file(store: PartStore, folder: Path) -> None:
    store.put("mine", b"abc", {"Id": "7"}, exclusive=True)
    info = known(store, "mine")
    assert (info.crc, dict(info.metadata)) == (CRC64_NVME.update(b"abc"), {"id": "7"})
    (folder / "mine").rename(folder / "moved")
    assert known(store, "moved") == info
    shutil.copy2(folder / "moved", folder / "copied")
    assert known(store, "copied").crc is None
    with open(folder / "moved", "r+b") as file:
        file.write(b"X")
    assert (known(store, "moved").crc, dict(known(store, "moved").metadata)) == (None, {})
    for record in (b"[]", b"{}", b"no JSON"):
        os.setxattr(folder / "moved", "user.imgconv", record)
        assert known(store, "moved").crc is None


def test_a_file_system_without_attributes(tmp_path: Path, root: None) -> None:
    with mounted(tmp_path / "ram", "mount", "-t", "ramfs", "none") as folder:
        store = Local().open(str(folder))
        with pytest.raises(StoreCannot, match=r"/ram/o: its file system has no extended attr"):
            store.begin("o", {"id": "7"})
        assert list(folder.iterdir()) == []
        (folder / "o").write_bytes(b"abc")
        assert read(store, "o") == b"abc"
        with pytest.raises(StoreCannot):
            store.put("p", b"abc", {}, exclusive=True)
        assert [path.name for path in folder.iterdir()] == ["o"]


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "../b", "/etc/passwd", "a\0b", HIDDEN])
def test_a_key_is_a_file_name(store: PartStore, folder: Path, key: str) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: store.begin(key, {}),
        lambda: store.put(key, b"", {}, exclusive=False),
        lambda: store.head(key),
        lambda: store.open(key),
        lambda: store.delete(key),
        lambda: send(store, Upload(key, "0" * 32), 1, b"abc"),
        lambda: store.abort(Upload(key, "0" * 32)),
    ]
    for attempt in attempts:
        with pytest.raises(StoreRefused, match="cannot be the name of a file"):
            attempt()
    assert names(folder) == []


def test_what_is_no_file(store: PartStore, folder: Path) -> None:
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe")
    for key in ("sub", "pipe"):
        assert store.head(key) is None
        with pytest.raises(ObjectMissing):
            store.open(key)
    for exclusive, error in ((True, OutputExists), (False, StoreRefused)):
        with pytest.raises(error):
            store.put("sub", b"abc", {}, exclusive=exclusive)
    with pytest.raises(StoreRefused):
        store.delete("sub")
    assert names(folder) == ["pipe", "sub"]


def test_places_that_take_no_objects(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absolute path"):
        Local().open("exports")
    with pytest.raises(StoreRefused, match="No such file"):
        Local().open(str(tmp_path / "missing")).begin("o", {})
    (tmp_path / "file").touch()
    with pytest.raises(StoreRefused, match="Not a directory"):
        Local().open(str(tmp_path / "file")).begin("o", {})
    with pytest.raises(StoreError):
        Local().open("/proc").begin("o", {})
    assert names(tmp_path) == ["file"]


def test_what_is_too_long(store: PartStore, folder: Path) -> None:
    with pytest.raises(StoreRefused, match="File name too long"):
        store.put("k" * 256, b"abc", {}, exclusive=True)
    with pytest.raises(StoreRefused, match="metadata"):
        store.begin("o", {"x": "y" * 4000})
    store.put("o", b"abc", {"x": "y" * 2900}, exclusive=True)
    assert known(store, "o").metadata == {"x": "y" * 2900}
    assert names(folder) == ["o"]


def test_what_a_kill_left_of_an_upload_is_swept_up(store: PartStore, folder: Path) -> None:
    kept = store.begin("kept", {})
    begun, removed = folder / HIDDEN / ("0" * 32), folder / HIDDEN / ("1" * 32)
    begun.mkdir()
    removed.mkdir()
    (removed / "00001").write_bytes(b"abc")
    assert list(store.list_uploads("")) == [kept]
    store.put("o", b"abc", {}, exclusive=True)
    assert names(folder / HIDDEN) == [kept.id]


def test_part_numbers(store: PartStore) -> None:
    upload = store.begin("o", {})
    for number in (0, -1, 10_001):
        with pytest.raises(StoreRefused):
            send(store, upload, number, b"abc")
    first, last = send(store, upload, 1, b"abc"), send(store, upload, 10_000, b"def")
    bad: list[list[Part]] = [[], [last, first], [first, first], [Part(2, 3, first.etag)]]
    bad.append([Part(1, 3, last.etag)])
    for parts in bad:
        with pytest.raises(StoreRefused):
            finish(store, upload, parts, b"abcabc")
    with pytest.raises(ContentDamaged):
        store.complete(upload, [first, last], size=7, crc=None, exclusive=True)
    assert finish(store, upload, [first, last], b"abcdef").size == 6


def test_uploads_of_others_and_none(store: PartStore, folder: Path) -> None:
    (folder.parent / "precious").mkdir()
    (folder.parent / "precious" / "file").touch()
    upload = store.begin("o", {})
    for stranger in (
        Upload("other", upload.id),
        Upload("o", "../../precious"),
        Upload("o", ""),
        Upload("o", "0" * 32),
    ):
        with pytest.raises(UploadGone):
            send(store, stranger, 1, b"abc")
    store.abort(Upload("o", "../../precious"))
    assert names(folder.parent / "precious") == ["file"]
    (hidden(folder, upload) / "upload.json").write_text('{"key": 5')
    assert list(store.list_uploads("")) == []
    with pytest.raises(UploadGone):
        list(store.list_parts(upload))
    store.abort(upload)
    assert names(folder) == []


def test_no_link_leads_out_of_the_folder(store: PartStore, folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    upload = store.begin("o", {})
    part = send(store, upload, 1, b"abc")
    secret = outside / "secret"
    secret.write_bytes((hidden(folder, upload) / "00001").read_bytes())
    (hidden(folder, upload) / "00001").unlink()
    (hidden(folder, upload) / "00001").symlink_to(secret)
    with pytest.raises(StoreRefused):
        finish(store, upload, [part], b"abc")
    store.abort(upload)
    (folder / HIDDEN).symlink_to(outside)
    with pytest.raises(StoreRefused):
        store.begin("o", {})
    with pytest.raises(StoreRefused):
        list(store.list_uploads(""))
    assert names(outside) == ["secret"]


def test_a_torn_part_is_no_part(store: PartStore, folder: Path) -> None:
    upload = store.begin("o", {})
    parts = [send(store, upload, number, b"content") for number in (1, 2, 3)]
    for path, length in ((hidden(folder, upload) / "00001", 20), ("00002", 3)):
        os.truncate(hidden(folder, upload) / path, length)
    (hidden(folder, upload) / "00004.0011.tmp").write_bytes(b"killed while writing")
    assert list(store.list_parts(upload)) == parts[2:]
    with pytest.raises(StoreRefused, match="part 1"):
        finish(store, upload, parts, b"content" * 3)
    parts[:2] = [send(store, upload, number, b"content") for number in (1, 2)]
    finish(store, upload, parts, b"content" * 3)
    assert names(folder) == ["o"]


def test_killed_between_publishing_and_cleaning_up(store: PartStore, folder: Path) -> None:
    """The object and the leftover name share their bytes; those must not be written to."""
    upload = store.begin("o", {})
    part = send(store, upload, 1, b"whole")
    (hidden(folder, upload) / "object").write_bytes(b"whole")
    os.link(hidden(folder, upload) / "object", folder / "o")
    with closing(store.open("o")) as reader:
        with pytest.raises(OutputExists):
            finish(store, upload, [part], b"whole", exclusive=True)
        reader.read_into(0, memoryview(bytearray(5)))
    finish(store, upload, [part], b"whole")
    assert names(folder) == ["o"]


def test_a_full_disk(tmp_path: Path, root: None) -> None:
    options = ("mount", "-t", "tmpfs", "-o", "size=5m", "none")
    with mounted(tmp_path / "small", *options) as folder:
        store = Local().open(str(folder))
        upload = store.begin("o", {})
        parts = [send(store, upload, number, content_of(MiB, number)) for number in (1, 2)]
        whole = content_of(MiB, 1) + content_of(MiB, 2)
        with pytest.raises(StoreRefused, match="No space left on device"):
            send(store, upload, 3, content_of(5 * MiB))
        (folder / "ballast").write_bytes(bytes(2 * MiB))
        with pytest.raises(StoreRefused, match="No space left on device"):
            finish(store, upload, parts, whole)
        assert names(hidden(folder, upload)) == ["00001", "00002", "upload.json"]
        (folder / "ballast").unlink()
        finish(store, upload, parts, whole)
        assert read(store, "o") == whole


def test_a_disk_without_room_for_another_name(tmp_path: Path, root: None) -> None:
    options = ("mount", "-t", "tmpfs", "-o", "nr_inodes=3", "none")
    with mounted(tmp_path / "small", *options) as folder:
        with pytest.raises(StoreRefused, match="No space left on device"):
            Local().open(str(folder)).begin("o", {})
        assert names(folder) == []


def test_one_upload_is_completed_once(store: PartStore, folder: Path) -> None:
    for _ in range(10):
        upload = store.begin("o", {})
        parts = [send(store, upload, number, b"x" * 5000) for number in range(1, 5)]

        def attempt(upload: Upload = upload, parts: list[Part] = parts) -> bool:
            try:
                finish(store, upload, parts, b"x" * 20_000)
            except UploadGone:
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            outcomes = [pool.submit(attempt) for _ in range(4)]
        assert sorted(outcome.result() for outcome in outcomes) == [False, False, False, True]
        assert read(store, "o") == b"x" * 20_000
        assert names(folder) == ["o"]


RACE = """
import sys
from imgconv.errors import OutputExists
from imgconv.stores.local import Local
store = Local().open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(50):
    try:
        store.put(f"o{number}", sys.argv[2].encode(), {"by": sys.argv[2]}, exclusive=True)
        print(number, flush=True)
    except OutputExists:
        pass
"""


def test_processes_that_want_the_same_names(store: PartStore, folder: Path) -> None:
    """One wins each; folders that come and go under the others' hands do not trouble them."""
    processes = [child(RACE, folder, str(i)) for i in range(4)]
    for process in processes:
        process.stdin.write(b"go\n")  # type: ignore[union-attr]
    outputs = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(int(n) for output in outputs for n in output) == list(range(50))
    for i, output in enumerate(outputs):
        for number in map(int, output):
            assert read(store, f"o{number}") == str(i).encode()
            assert known(store, f"o{number}").metadata == {"by": str(i)}
    assert len(names(folder)) == 50


EXPORT = """
import sys
from imgconv.stores.local import Local
from imgconv.testing import content_of, finish, send
store = Local().open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
upload = next(store.list_uploads("o"), None) or store.begin("o", {"id": "7"})
parts = {part.number: part for part in store.list_parts(upload)}
contents = {n: content_of(300_000 * n, n) for n in range(1, 9)}
for number in sorted(contents, reverse=True):
    if number not in parts:
        parts[number] = send(store, upload, number, contents[number])
whole = b"".join(contents.values())
finish(store, upload, [parts[n] for n in contents], whole)
"""


def child(script: str, *arguments: str | Path) -> "subprocess.Popen[bytes]":
    """Start a Python process and wait until it stands ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_killed_at_any_moment(store: PartStore, folder: Path) -> None:
    """No half object ever, no half part; whoever comes next goes on."""
    whole = b"".join(content_of(300_000 * n, n) for n in range(1, 9))
    process, began = child(EXPORT, folder), time.monotonic()
    process.communicate(b"go\n")
    duration, rng, rounds, killed = time.monotonic() - began, random.Random(1), 0, 0
    while rounds < ROUNDS or killed <= ROUNDS:  # a slow first run makes kills late
        rounds += 1
        store.delete("o")
        while store.head("o") is None:
            process = child(EXPORT, folder)
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
            time.sleep(rng.uniform(0, duration))
            process.kill()
            process.communicate()
            killed += process.returncode == -9
            for upload in store.list_uploads("o"):
                for part in store.list_parts(upload):
                    content = content_of(300_000 * part.number, part.number)
                    assert part.crc == CRC64_NVME.update(content)
        assert read(store, "o") == whole
        assert known(store, "o").crc == CRC64_NVME.update(whole)
        assert known(store, "o").metadata == {"id": "7"}
    for upload in store.list_uploads("o"):
        store.abort(upload)
    store.put("sweeps", b"", {}, exclusive=True)
    assert names(folder) == ["o", "sweeps"]
