"""Exports in tests: where they go, seen from the side, and commands for them."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imgconv
from imgconv.exporting.destination import destination_of
from imgconv.exporting.plan import ExportSettings, Plan, make_plan
from imgconv.exporting.request import ExportLimits, ExportRequest, disks_of
from imgconv.stores import Store
from imgconv.stores.s3 import S3
from support.cli import COMMAND
from support.oss_client import at
from support.oss_server import REGION, OssServer
from support.seaweed import BUCKET, Seaweed

PATIENCE = 60.0  # seconds until a test that waits for something gives up
EXPORTED = ("raw", "vhd", "qcow2", "vmdk", "vdi")


@dataclass(frozen=True)
class Place:
    """A store: as text for commands, as options for the library, and what is in it.

    `objects` and `uploads` are asked with the beginning of keys.
    """

    words: tuple[str, ...]
    scheme: str
    store: Store
    objects: Callable[[str], dict[str, bytes]]
    uploads: Callable[[str], list[str]]

    def url(self, key: str) -> str:
        return f"{self.scheme}://{BUCKET}/{key}"


def oss_place(server: OssServer) -> Place:
    def objects(prefix: str) -> dict[str, bytes]:
        found = server.objects.values()
        return {one.key: one.content() for one in found if one.key.startswith(prefix)}

    def uploads(prefix: str) -> list[str]:
        return [one.key for one in server.uploads.values() if one.key.startswith(prefix)]

    words = ("--store", f"oss://{server.endpoint_url}", "--region", REGION)
    return Place(words, "oss", at(server), objects, uploads)


def s3_place(seaweed: Seaweed) -> Place:
    client = seaweed.client()

    def objects(prefix: str) -> dict[str, bytes]:
        listed = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
        keys = [row["Key"] for row in listed]
        return {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def uploads(prefix: str) -> list[str]:
        listed = client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
        return [row["Key"] for row in listed.get("Uploads", ())]

    store = S3(endpoint_url=seaweed.endpoint_url, region="us-east-1", profile="seaweedfs")
    words = ("--store", f"s3://{seaweed.endpoint_url}")
    words += ("--store-options", "profile=seaweedfs,region=us-east-1")
    return Place(words, "s3", store, objects, uploads)


def planned(
    pair: dict[str, Path],
    image_id: str,
    store: str = "s3://storage.example.com",
    **more: Any,
) -> Plan:
    """The plan of an export of these disks, without anything being read or sent."""
    request = ExportRequest(image_id=image_id, bucket="b", request_id="R", **more)
    destination = destination_of(request, store)
    upload = imgconv.UploadOptions(part_size=7, metadata={"k": "v"})
    read = imgconv.ReadOptions(allow_references=("/tmp",))
    settings = ExportSettings(upload=upload, read=read, keep=True)
    return make_plan(request, disks_of(pair), destination, ExportLimits(), settings)


def disk_words(disks: dict[str, Path]) -> list[str]:
    return [word for role, path in disks.items() for word in ("--disk", f"{role}={path}")]


def export_words(disks: dict[str, Path], state: Path, *more: str) -> list[str]:
    """The words of an export into the bucket that every store has; `more` come last."""
    words = ["export", "--image-id", "m-1", "--bucket", BUCKET, "--state", str(state)]
    return [*words, *disk_words(disks), *more]


def begin(*words: str | Path) -> "subprocess.Popen[str]":
    """Start a command."""
    return subprocess.Popen(
        [*COMMAND, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


def await_(condition: Callable[[], Any]) -> Any:
    """Return what the condition returns, as soon as that is something."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)
    return found


def manifest_of(objects: dict[str, bytes]) -> dict[str, Any]:
    (content,) = (value for key, value in objects.items() if "_manifest." in key)
    found: dict[str, Any] = json.loads(content)
    return found
