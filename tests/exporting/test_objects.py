"""What an export leaves in the bucket: the right objects, under the right names."""

import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from support.cli import assert_one_line_error, imgconv
from support.exporting import (
    BUCKET,
    EXPORTED,
    Place,
    disk_words,
    export_words,
    manifest_of,
)
from support.mounts import mounted

import imgconv as library

NAMES = ("system", "data_xvdb", "data_xvdc", "data_xvdd", "data_xvde")


@pytest.mark.parametrize("name", EXPORTED)
def test_five_disks_become_five_objects_and_a_manifest(
    tmp_path: Path, image: dict[str, Path], state: Path, s3: Place, name: str
) -> None:
    """One command; every object is what convert writes; one command verifies them."""
    prefix, image_id = "EcsExport", f"m-{name}"
    words = ["export", "--image-id", image_id, "--bucket", BUCKET, *disk_words(image)]
    words += ["--prefix", prefix, "--format", name, "--state", str(state), *s3.words, "--json"]
    done = imgconv(*words)
    assert done.returncode == 0, done
    objects = s3.objects(f"{prefix}_{image_id}_")
    keys = [f"{prefix}_{image_id}_{disk}.{name}" for disk in NAMES]
    manifest = f"{prefix}_{image_id}_manifest.{name}.json"
    assert set(objects) == {*keys, manifest}
    for disk, key, source in zip(NAMES, keys, image.values(), strict=True):
        out = tmp_path / key
        library.convert(source, out, options=name, identity=f"{image_id}_{disk}")
        assert objects[key] == out.read_bytes()
    told = json.loads(done.stdout)
    assert (told["status"], told["process"]) == ("Finished", "100%")
    assert [disk["key"] for disk in told["disks"]] == keys
    store_words = ("--endpoint-url", s3.words[1].removeprefix("s3://"))
    verified = imgconv("verify-export", s3.url(manifest), *store_words)
    assert verified.returncode == 0, verified
    assert verified.stdout.count("good  s3://") == 5
    assert s3.uploads(prefix) == []


def test_raw_in_the_services_container(
    tmp_path: Path, image: dict[str, Path], state: Path, oss: Place
) -> None:
    words = export_words(image, state, *oss.words, "--raw-container", "tar.gz", "-q")
    assert imgconv(*words).returncode == 0
    objects = oss.objects("m-1_")
    for disk, source in zip(NAMES, image.values(), strict=True):
        path = tmp_path / "archive"
        path.write_bytes(objects.pop(f"m-1_{disk}.raw.tar.gz"))
        with tarfile.open(path) as archive:
            assert archive.getnames() == [f"m-1_{disk}.raw"]
            member = archive.extractfile(f"m-1_{disk}.raw")
            assert member is not None
            assert member.read() == source.read_bytes()
    assert list(objects) == ["m-1_manifest.raw.tar.gz.json"]
    verified = library.verify_export(oss.url("m-1_manifest.raw.tar.gz.json"), store=oss.store)
    assert verified.good
    assert len(verified.objects) == 5


def test_names_are_known_up_front_and_can_be_others(
    pair: dict[str, Path], folder: Path, state: Path
) -> None:
    seen: list[dict[str, str]] = []
    request = library.ExportRequest(image_id="m-1", bucket=BUCKET, prefix="p")
    settings = library.ExportSettings(template="{disk}-{image_id}.{prefix}{extension}")
    task = library.export(
        request,
        pair,
        store=f"file://{folder}",
        settings=settings,
        state=state,
        on_accepted=lambda task: seen.append(task.objects),
    )
    where = f"file://{folder}/{BUCKET}"
    assert seen == [
        {
            "system": f"{where}/system-m-1.p.raw",
            "data_xvdb": f"{where}/data_xvdb-m-1.p.raw",
            "manifest": f"{where}/manifest-m-1.p.raw.json",
        }
    ]
    names = sorted(path.name for path in (folder / BUCKET).iterdir())
    assert names == ["data_xvdb-m-1.p.raw", "manifest-m-1.p.raw.json", "system-m-1.p.raw"]
    assert task.status == "Finished"


def test_one_image_in_several_formats(pair: dict[str, Path], folder: Path, state: Path) -> None:
    for name in ("vdi", "vhd"):
        words = export_words(pair, state, "--store", f"file://{folder}", "--format", name, "-q")
        assert imgconv(*words).returncode == 0
    assert len(list((folder / BUCKET).iterdir())) == 6


def test_a_name_that_is_taken_is_found_before_a_disk_is_read(
    pair: dict[str, Path], folder: Path, state: Path
) -> None:
    (folder / BUCKET / "m-1_manifest.raw.json").write_bytes(b"x")
    seen: list[object] = []
    with pytest.raises(library.ExportImageFailed, match=r"manifest.raw.json: exists already"):
        library.export(
            library.ExportRequest(image_id="m-1", bucket=BUCKET),
            pair,
            store=f"file://{folder}",
            state=state,
            progress=seen.append,
        )
    assert seen == []
    assert len(list((folder / BUCKET).iterdir())) == 1


@pytest.mark.parametrize(
    "template", ["{image_id}", "{disk}{nobody}", "{0.__class__}{disk}", "a/{disk}{extension}"]
)
def test_a_template_that_cannot_be(
    pair: dict[str, Path], folder: Path, state: Path, template: str
) -> None:
    words = ("--store", f"file://{folder}", "--template", template)
    done = imgconv(*export_words(pair, state, *words))
    assert_one_line_error(done, template, status=2)


def test_what_the_manifest_says(pair: dict[str, Path], state: Path, oss: Place) -> None:
    words = export_words(pair, state, *oss.words, "--part-size", "100K", "-q")
    assert imgconv(*words, "--request-id", "R-1", "--format", "vdi").returncode == 0
    objects = oss.objects("m-1_")
    manifest = manifest_of(objects)
    assert manifest["request_id"] == "R-1"
    assert manifest["format"] == "vdi"
    for disk, source in zip(manifest["disks"], pair.values(), strict=True):
        assert disk["size"] == len(objects[disk["key"]])
        assert disk["virtual_size"] == source.stat().st_size
        assert disk["checksum"] == "CRC-64/XZ"
        receipt = disk["receipt"]
        lengths = [part[receipt["part_fields"].index("length")] for part in receipt["parts"]]
        assert sum(lengths) == disk["size"]
        assert receipt["store_verified"]
    assert str(next(iter(pair.values())).parent) not in json.dumps(manifest)


@pytest.fixture
def exported(pair: dict[str, Path], folder: Path, state: Path) -> Path:
    """The bucket's folder with an export in it."""
    words = export_words(pair, state, "--store", f"file://{folder}", "-q")
    assert imgconv(*words).returncode == 0
    return folder / BUCKET


def verify(bucket: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return imgconv("verify-export", f"file://{bucket}/m-1_manifest.raw.json", *more)


@pytest.mark.parametrize("more", [(), ("--quick",)])
def test_a_missing_object_and_one_of_another_size_are_found(
    exported: Path, more: tuple[str, ...]
) -> None:
    assert verify(exported, *more).returncode == 0
    with open(exported / "m-1_data_xvdb.raw", "ab") as file:
        file.write(b"x")
    (exported / "m-1_system.raw").unlink()
    done = verify(exported, *more)
    assert done.returncode == 1
    assert "m-1_system.raw: is missing" in done.stdout
    assert f"has {1200 * 1024 + 1} bytes, not {1200 * 1024}" in done.stdout


def test_one_damaged_byte_is_found(exported: Path) -> None:
    with open(exported / "m-1_system.raw", "r+b") as file:
        file.seek(500_000)
        byte = file.read(1)
        file.seek(500_000)
        file.write(bytes([byte[0] ^ 1]))
    done = verify(exported)
    assert done.returncode == 1
    assert "BAD   file://" in done.stdout
    assert "m-1_system.raw: has checksum" in done.stdout
    assert "good  file://" in done.stdout


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"sha256": 1}',
        b'{"disks": 3, "sha256": ""}',
    ],
)
def test_what_is_no_manifest(exported: Path, content: bytes) -> None:
    (exported / "m-1_manifest.raw.json").write_bytes(content)
    assert_one_line_error(verify(exported), "m-1_manifest.raw.json")


def test_a_changed_manifest(exported: Path) -> None:
    path = exported / "m-1_manifest.raw.json"
    path.write_text(path.read_text().replace("_system.raw", "_sYstem.raw"))
    assert_one_line_error(verify(exported), "was changed")


def test_a_manifest_leads_to_no_other_folder(exported: Path, tmp_path: Path) -> None:
    from imgconv.exporting.manifest import _canonical, sha256

    path = exported / "m-1_manifest.raw.json"
    record = json.loads(path.read_text())
    del record["sha256"]
    record["disks"][0]["key"] = "../../secret"
    record["sha256"] = sha256(_canonical(record)).hexdigest()
    path.write_text(json.dumps(record))
    (tmp_path / "secret").write_bytes(b"x" * record["disks"][0]["size"])
    done = verify(exported)
    assert done.returncode == 1
    assert "cannot be the name of a file" in done.stdout


def test_a_folder_that_cannot_say_whose_an_object_is(
    tmp_path: Path, pair: dict[str, Path], state: Path, root: None
) -> None:
    """Nothing is begun there that could not be told from others, and removed again."""
    with mounted(tmp_path / "ram", "mount", "-t", "ramfs", "none") as folder:
        bucket = folder / BUCKET
        bucket.mkdir()
        done = imgconv(*export_words(pair, state, "--store", f"file://{folder}", "-q"))
        assert_one_line_error(
            done, "m-1_system.raw: its file system has no extended attributes"
        )
        assert [*bucket.iterdir()] == []
    (task,) = library.export_tasks(state=state)
    assert task.status == "Failed"
    assert [path.name for path in state.parent.iterdir()] == [state.name]
