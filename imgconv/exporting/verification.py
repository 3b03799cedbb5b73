"""Verifying an export by its manifest: is every object there, and is it what was sent?"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from posixpath import dirname, join

from imgconv.errors import ContentDamaged, ObjectChanged, ObjectMissing, StoreRefused
from imgconv.exporting.destination import client_of
from imgconv.exporting.manifest import MOST, ManifestEntry, read_manifest
from imgconv.native import CRC64_NVME, CRC64_XZ, Checksum
from imgconv.objects import opened_store
from imgconv.objectstore import ObjectReader, PartStore
from imgconv.stores import ObjectUrl, Store, parse_url
from imgconv.units import MiB
from imgconv.upload.client import Client
from imgconv.upload.retry import Backoff
from imgconv.workers import Stop, Turn, run

_CHUNK = 8 * MiB
_CHECKSUMS = {checksum.name: checksum for checksum in (CRC64_NVME, CRC64_XZ)}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedObject:
    """An object of a manifest; `problem` says what is wrong with it, None if nothing is.

    `read` tells whether its bytes were read, or only what the store says of it.
    """

    disk: str
    format: str
    url: str
    size: int
    checksum: str
    crc: str
    read: bool
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What has become of the objects of an export."""

    manifest: str
    image_id: str
    task_id: str
    format: str
    objects: tuple[VerifiedObject, ...]

    @property
    def good(self) -> bool:
        """Whether every object is what was sent."""
        return all(one.problem is None for one in self.objects)


def verify_export(
    url: str,
    *,
    store: Store | None = None,
    quick: bool = False,
    concurrency: int = 4,
    cancelled: Callable[[], bool] | None = None,
) -> Verification:
    """Hold the objects of an export against the manifest at `url`.

    Each is read, and its size and CRC-64 are compared; with `quick` only what the store
    tells of it is. `concurrency` is how many requests are made at once. Raises
    ObjectMissing and ContentDamaged when it is the manifest that is not there or damaged,
    other StoreErrors, UsageError and Cancelled.
    """
    where = parse_url(url)
    with opened_store(where, store) as opened:
        client = client_of(opened, Backoff(patience=60.0), cancelled)
        manifest = read_manifest(url, _content(client, opened, where.key))
    found: dict[ManifestEntry, VerifiedObject] = {}
    for bucket in dict.fromkeys(entry.bucket for entry in manifest.entries):
        with opened_store(_beside(where, manifest.bucket, bucket), store) as opened:
            client = client_of(opened, Backoff(patience=60.0), cancelled)
            for entry in manifest.entries:
                if entry.bucket == bucket:
                    found[entry] = _verified(client, opened, entry, quick, concurrency)
    return Verification(
        manifest=url,
        image_id=manifest.image_id,
        task_id=manifest.task_id,
        format=manifest.format,
        objects=tuple(found[entry] for entry in manifest.entries),
    )


def _beside(where: ObjectUrl, own: str, bucket: str) -> ObjectUrl:
    """Return where objects in a bucket are whose manifest, in `own`, is at `where`.

    A manifest that was moved is believed to have its own bucket's objects with it.
    """
    if bucket == own:
        return where
    name = join(dirname(where.bucket), bucket) if where.scheme == "file" else bucket
    return replace(where, bucket=name)


def _content(client: Client, store: PartStore, key: str) -> bytes:
    with closing(client.request(lambda: store.open(key))) as reader:
        if reader.info.size > MOST:
            raise ContentDamaged(f"{reader.name}: is too large for a manifest")
        buffer = bytearray(reader.info.size)
        client.request(lambda: reader.read_into(0, memoryview(buffer)))
        return bytes(buffer)


def _verified(
    client: Client, store: PartStore, entry: ManifestEntry, quick: bool, concurrency: int
) -> VerifiedObject:
    try:
        problem = _problem(client, store, entry, quick, concurrency)
    except ObjectMissing:
        problem = "is missing"
    except (ContentDamaged, ObjectChanged, StoreRefused) as error:
        problem = str(error)
    return VerifiedObject(
        disk=entry.disk,
        format=entry.format,
        url=f"{store.name}/{entry.key}",
        size=entry.size,
        checksum=entry.checksum,
        crc=entry.crc,
        read=not quick,
        problem=problem,
    )


def _problem(
    client: Client, store: PartStore, entry: ManifestEntry, quick: bool, concurrency: int
) -> str | None:
    checksum = _CHECKSUMS.get(entry.checksum)
    if checksum is None:
        return f"its checksum is of an unknown kind, {entry.checksum}"
    with closing(client.request(lambda: store.open(entry.key))) as reader:
        if reader.info.size != entry.size:
            return f"has {reader.info.size} bytes, not {entry.size}"
        if quick:
            told, expected = reader.info, int(entry.crc, 16)
            if told.crc is not None:
                return None if told.crc == expected else "has another checksum"
            return None if told.etag == entry.etag else "has another ETag"
        found = _checksum(client, reader, checksum, concurrency)
        return None if f"{found:016x}" == entry.crc else f"has checksum {found:016x}"


def _checksum(
    client: Client, reader: ObjectReader, checksum: Checksum, concurrency: int
) -> int:
    """Return the checksum of an object's bytes, which are read by ranges."""
    size, value = reader.info.size, 0

    def make_worker() -> Callable[[int, Turn], None]:
        buffer = memoryview(bytearray(min(_CHUNK, size)))

        def work(offset: int, turn: Turn) -> None:
            nonlocal value
            piece = buffer[: min(_CHUNK, size - offset)]
            client.request(lambda: reader.read_into(offset, piece))
            crc = checksum.update(piece)
            with turn:
                value = checksum.combine(value, crc, len(piece))

        return work

    stop = Stop(client.stop.is_set)
    run(range(0, size, _CHUNK), make_worker, threads=concurrency, stop=stop)
    return value
