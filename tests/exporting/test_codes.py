"""Every code of the service that a data plane can meet: a real cause, one line, the code."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import disks, range_server
from support.cli import assert_one_line_error, imgconv
from support.exporting import BUCKET, Place, disk_words, export_words
from support.faults import Fault
from support.oss_auth import Key
from support.oss_server import OssServer

import imgconv as library
from imgconv.exporting import errors
from imgconv.exporting.events import Event
from imgconv.units import GiB, MiB

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "export-worker.md").read_text()


@dataclass
class World:
    """What causes have to play with."""

    disks: dict[str, Path]
    folder: Path
    state: Path
    server: OssServer
    oss: Place
    monkeypatch: pytest.MonkeyPatch

    def words(self, *more: str) -> list[str]:
        return export_words(self.disks, self.state, "--store", f"file://{self.folder}", *more)

    def to_oss(self, *more: str) -> list[str]:
        return export_words(self.disks, self.state, *self.oss.words, *more)


@pytest.fixture
def world(
    tmp_path: Path,
    folder: Path,
    state: Path,
    oss_server: OssServer,
    oss: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    disk = disks.write(tmp_path / "disk.raw", MiB, {4096: b"data"})
    return World({"system": disk}, folder, state, oss_server, oss, monkeypatch)


def five_data_disks(world: World) -> list[str]:
    for device in "bcdef":
        world.disks[f"data:xvd{device}"] = world.disks["system"]
    return world.words()


def a_large_data_disk(world: World) -> list[str]:
    path = world.folder / "large.raw"
    world.disks["data:xvdb"] = disks.empty(path, 500 * GiB + 512)
    return world.words()


def too_large_for_the_format(world: World) -> list[str]:
    world.disks["system"] = disks.empty(world.folder / "vast.raw", 3000 * GiB)
    return world.words("--format", "vhd")


def encrypted_qcow2(world: World) -> list[str]:
    """By the old method: for LUKS, qemu-img measures the processor, which a busy one fails."""
    path = world.folder / "secret.qcow2"
    secret = "--object", "secret,id=s,data=abc"
    method = "-o", "encrypt.format=aes,encrypt.key-secret=s"
    command = ["qemu-img", "create", "-q", *secret, "-f", "qcow2", *method, str(path), "1M"]
    subprocess.run(command, check=True)
    world.disks["system"] = path
    return world.words()


def luks(world: World) -> list[str]:
    front = b"LUKS\xba\xbe" + (1).to_bytes(2, "big") + b"aes".ljust(32, b"\0")
    world.disks["system"] = disks.write(world.folder / "secret.img", MiB, {0: front})
    return world.words()


def a_missing_disk(world: World) -> list[str]:
    world.disks["system"] = world.folder / "nowhere.raw"
    return world.words()


def half_a_disk(world: World) -> list[str]:
    whole, half = world.folder / "whole.qcow2", world.folder / "half.qcow2"
    library.convert(world.disks["system"], whole)
    half.write_bytes(whole.read_bytes()[: 64 * 1024 + 100])
    world.disks["system"] = half
    return world.words()


def no_folder(world: World) -> list[str]:
    (world.folder / BUCKET).rmdir()
    return world.words()


def no_bucket(world: World) -> list[str]:
    world.server.state.missing_buckets.add(BUCKET)
    return world.to_oss()


def another_region(world: World) -> list[str]:
    world.server.state.locations[BUCKET] = "cn-beijing"
    return world.to_oss()


def an_encrypted_bucket(world: World) -> list[str]:
    world.server.state.encryption[BUCKET] = "KMS"
    return world.to_oss()


def no_rights(world: World) -> list[str]:
    world.server.policy = frozenset()
    return world.to_oss()


def wrong_keys(world: World) -> list[str]:
    world.server.keys["imgconv"] = Key("another secret")
    return world.to_oss()


def no_rights_to_put(world: World) -> list[str]:
    world.server.policy = frozenset(
        ["oss:GetBucketInfo", "oss:GetBucketLocation", "oss:GetObject"]
    )
    return world.to_oss()


def no_keys(world: World) -> list[str]:
    world.monkeypatch.delenv("OSS_ACCESS_KEY_ID")
    nowhere = "metadata_url=http://127.0.0.1:1"
    return world.to_oss("--store-options", nowhere)


def an_object_of_that_name(world: World) -> list[str]:
    (world.folder / BUCKET / "m-1_system.raw").write_bytes(b"somebody else's")
    return world.words()


def a_store_that_fails(world: World) -> list[str]:
    world.server.faults.rule = lambda operation, request: (
        Fault(status=500) if operation == "UploadPart" else None
    )
    return world.to_oss("--patience", "0s")


CAUSES: list[tuple[str, int, Callable[[World], list[str]]]] = [
    ("InvalidImageFormat.Malformed", 2, lambda w: w.words("--format", "ova")),
    ("InvalidImageFormat.Malformed", 2, lambda w: w.words("--format", "RAW")),
    ("InvalidOSSPrefix.Malformed", 2, lambda w: w.words("--prefix", "with-dash")),
    ("InvalidOSSPrefix.Malformed", 2, lambda w: w.words("--prefix", "x" * 31)),
    ("InvalidOSSPrefix.Malformed", 2, lambda w: w.words("--prefix", "")),
    ("InvalidImageName.Malformed", 2, lambda w: w.words("--image-id", "aliyun_3_x64")),
    ("InvalidImageName.Malformed", 2, lambda w: w.words("--image-id", "1-digit-first")),
    ("InvalidImageName.Malformed", 2, lambda w: w.words("--image-id", "http://a/b")),
    ("InvalidImageName.Malformed", 2, lambda w: w.words("--image-id", "../../etc")),
    ("InvalidOSSBucket.NotFound", 1, no_folder),
    ("InvalidOSSBucket.NotFound", 1, no_bucket),
    ("InvalidOSSBucket.NotFound", 1, lambda w: w.words("--bucket", "..")),
    ("InvalidOSSBucket.NotMatched", 1, another_region),
    ("InvalidOSSBucket.EncryptUnsupported", 1, an_encrypted_bucket),
    ("NoSetRoletoECSServiceAcount", 1, no_rights),
    ("NoSetRoletoECSServiceAcount", 1, wrong_keys),
    ("NoSetRoletoECSServiceAcount", 1, no_rights_to_put),
    ("NoSetRoletoECSServiceAcount", 1, no_keys),
    ("InvalidImage.DiskAmountOrSize", 1, five_data_disks),
    ("InvalidImage.DiskAmountOrSize", 1, a_large_data_disk),
    ("InvalidImage.DiskAmountOrSize", 1, too_large_for_the_format),
    ("ImageNotSupported", 1, encrypted_qcow2),
    ("ImageNotSupported", 1, luks),
    ("IncorrectImageStatus", 1, a_missing_disk),
    ("IncorrectImageStatus", 1, half_a_disk),
    ("ExportImageFailed", 1, an_object_of_that_name),
    ("ExportImageFailed", 75, a_store_that_fails),
]


@pytest.mark.parametrize(("code", "status", "cause"), CAUSES)
def test_a_real_cause_is_one_line_with_the_code(
    world: World, code: str, status: int, cause: Callable[[World], list[str]]
) -> None:
    done = imgconv(*cause(world), "-q")
    (http_status,) = {kind.http_status for kind in ALL if kind.code == code}
    assert_one_line_error(done, f"error: {http_status} {code}: ", status=status)


def test_the_same_image_is_not_exported_twice_at_once(world: World) -> None:
    done: list[subprocess.CompletedProcess[str]] = []

    def meanwhile(task: library.ExportTask) -> None:
        done.append(imgconv(*world.words(), "-q"))

    request = library.ExportRequest(image_id="m-1", bucket=BUCKET)
    library.export(
        request,
        world.disks,
        store=f"file://{world.folder}",
        state=world.state,
        on_accepted=meanwhile,
    )
    assert_one_line_error(done[0], "error: 403 ImageIsExporting: ", status=75)
    assert (world.folder / BUCKET / "m-1_system.raw").exists()


def test_no_more_exports_at_once_than_allowed(world: World) -> None:
    done: list[subprocess.CompletedProcess[str]] = []

    def meanwhile(task: library.ExportTask) -> None:
        for most in ("1", "2"):
            more = "--image-id", f"m-{most}", "--max-exports", most, "-q"
            done.append(imgconv(*world.words(*more)))

    request = library.ExportRequest(image_id="m-0", bucket=BUCKET)
    library.export(
        request,
        world.disks,
        store=f"file://{world.folder}",
        state=world.state,
        on_accepted=meanwhile,
    )
    assert_one_line_error(done[0], "error: 403 ConcurrentQuotaExceed.ExportImage: ", status=75)
    assert done[1].returncode == 0


def test_a_source_that_changes_meanwhile(world: World) -> None:
    def change(task: library.ExportTask) -> None:
        disks.write(world.disks["system"], MiB, {0: b"other data"})

    request = library.ExportRequest(image_id="m-1", bucket=BUCKET)
    with pytest.raises(library.IncorrectImageStatus, match="was changed"):
        library.export(
            request,
            world.disks,
            store=f"file://{world.folder}",
            state=world.state,
            on_accepted=change,
        )
    assert list((world.folder / BUCKET).iterdir()) == []


def test_a_signature_in_the_url_of_a_disk_is_told_nowhere(world: World) -> None:
    """Messages are stored and logged, and go to whoever asked for the export."""
    request = library.ExportRequest(image_id="m-1", bucket=BUCKET)
    events: list[Event] = []
    with range_server.serving(bytes(MiB)) as site:
        signed = f"{site.url}?X-Amz-Signature=secret"
        small = library.ExportLimits(data_disk_size=512)

        def change(task: library.ExportTask) -> None:
            site.etag = '"v2"'

        def export(disks: dict[str, str], **more: Any) -> str:
            with pytest.raises(library.ImgconvError) as caught:
                library.export(
                    request, disks, store=f"file://{world.folder}", state=world.state, **more
                )
            return str(caught.value)

        told = [
            export({"system": site.url, "data:xvdb": signed}, limits=small),
            export({"system": signed}, on_accepted=change, listener=events.append),
        ]
        told += [event.message for event in events if event.message]
        (state,) = library.export_tasks(state=world.state)
        told.append(state.message)
    assert len(told) == 4
    for message in told:
        assert site.url in message
        assert "secret" not in message


def test_a_bucket_of_s3_that_is_not_there(world: World, s3: Place) -> None:
    words = ["export", "--image-id", "m-1", "--bucket", "nowhere", *disk_words(world.disks)]
    done = imgconv(*words, "--state", world.state, *s3.words)
    assert_one_line_error(
        done, "error: 400 InvalidOSSBucket.NotFound: s3://nowhere/: get location"
    )


def test_limits_can_be_others(world: World) -> None:
    five_data_disks(world)
    done = imgconv(*world.words("--max-data-disks", "5", "--max-data-disk-size", "1M"), "-q")
    assert done.returncode == 0, done
    done = imgconv(*world.words("--max-data-disks", "5", "--max-data-disk-size", "1023K"))
    assert_one_line_error(done, "InvalidImage.DiskAmountOrSize", "xvdb has 1 MiB")


ALL = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, errors.ExportError)
    and kind not in (errors.ExportError, errors.MalformedRequest)
]


def test_every_error_is_reached_here() -> None:
    reached = {code for code, _, _ in CAUSES}
    reached |= {"ImageIsExporting", "ConcurrentQuotaExceed.ExportImage"}
    assert reached == {kind.code for kind in ALL}


def test_the_table_of_codes_is_whole() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `([\w.]+)`", PAGE, re.MULTILINE)
    assert len(rows) == 21  # what the service's page lists
    assert len({code for _, code in rows}) == 20  # ImageNotSupported has two statuses
    for kind in ALL:
        assert (str(kind.http_status), kind.code) in rows


def test_a_mistake_of_another_kind_is_not_the_services() -> None:
    request = library.ExportRequest(image_id="m-1", bucket="b")
    for disks_given in ({}, {"data:xvdb": "x"}, {"system": "x", "swap": "y"}):
        with pytest.raises(library.UsageError, match="system"):
            library.export(request, disks_given, store="file:///nowhere")
    with pytest.raises(library.OptionError, match="raw_container"):
        library.ExportRequest(
            image_id="m-1", bucket="b", image_format="vhd", raw_container="tar.gz"
        )
    for store in ("nowhere", "file://x", "ticket:///t", "oss://user:secret@host", "ftp://h"):
        with pytest.raises(library.UsageError) as caught:
            library.export(request, {"system": "x"}, store=store)
        assert "\n" not in str(caught.value)
