"""What the loopback OSS server holds: uploads, parts and objects, all of it on disk.

    data/<id>/upload.json    the upload of that id is unfinished
    data/<id>/<piece>        a part, or an object put at once; its name tells all of it
    objects/<hash>.json      an object: the pieces it is made of, in order

Each change takes effect with one rename or unlink, so a killed server that is started
again holds exactly what it had acknowledged. An object is the list of its parts; nothing
is copied to complete an upload.
"""

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from imgconv.native import CRC64_XZ

CHUNK = 1 << 20


@dataclass(frozen=True)
class Piece:
    """Stored bytes; with `discard` the file is empty and the bytes read as zeros."""

    path: str
    number: int
    time_ns: int
    length: int
    crc: int
    etag: str

    @staticmethod
    def of(path: Path) -> "Piece":
        number, time_ns, length, crc, etag = path.name.split("-")
        numbers = int(number), int(time_ns, 16), int(length, 16), int(crc, 16)
        return Piece(str(path), *numbers, etag)

    def read(self, start: int, length: int) -> Iterator[bytes]:
        with open(self.path, "rb", buffering=0) as file:
            file.seek(start)
            while length > 0:
                wanted = min(length, CHUNK)
                piece = file.read(wanted) or bytes(wanted)
                length -= len(piece)
                yield piece


@dataclass(frozen=True)
class StoredObject:
    bucket: str
    key: str
    upload: str
    length: int
    etag: str
    crc: int
    headers: dict[str, str]
    time: float
    pieces: tuple[Piece, ...]

    def read(self, start: int, length: int) -> Iterator[bytes]:
        at = 0
        for piece in self.pieces:
            first, last = max(start - at, 0), min(start + length - at, piece.length)
            if first < last:
                yield from piece.read(first, last - first)
            at += piece.length

    def content(self) -> bytes:
        return b"".join(self.read(0, self.length))


@dataclass
class PendingUpload:
    bucket: str
    key: str
    id: str
    headers: dict[str, str]
    time: float
    parts: dict[int, Piece] = field(default_factory=dict)


def _write(path: Path, value: object) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(value))
    new.rename(path)


class State:
    """All of it; callers hold `lock` around look-ups followed by changes."""

    def __init__(self, folder: Path, *, discard: bool = False, page: int = 1000):
        self._data, self._objects = folder / "data", folder / "objects"
        self._discard, self.page = discard, page
        self.missing_buckets: set[str] = set()
        self.locations: dict[str, str] = {}  # of buckets that are in another region
        self.encryption: dict[str, str] = {}  # by which method buckets encrypt
        self.unique_etags = False  # of parts, as where customers' keys encrypt them
        self.lock = threading.RLock()
        self.uploads: dict[str, PendingUpload] = {}
        self.objects: dict[tuple[str, str], StoredObject] = {}
        self._data.mkdir(parents=True, exist_ok=True)
        self._objects.mkdir(exist_ok=True)
        self._load()

    def _load(self) -> None:
        for path in self._objects.glob("*.json"):
            row = json.loads(path.read_text())
            row["pieces"] = tuple(Piece(**piece) for piece in row["pieces"])
            found = StoredObject(**row)
            self.objects[found.bucket, found.key] = found
        finished = {found.upload for found in self.objects.values()}
        for folder in self._data.iterdir():
            if folder.name not in finished:
                self._load_upload(folder)

    def _load_upload(self, folder: Path) -> None:
        try:
            row = json.loads((folder / "upload.json").read_text())
        except FileNotFoundError:
            shutil.rmtree(folder)
            return
        upload = PendingUpload(**row)
        paths = [p for p in folder.iterdir() if p.suffix not in (".json", ".new")]
        for piece in sorted(map(Piece.of, paths), key=lambda p: p.time_ns):
            upload.parts[piece.number] = piece  # of two of one number the later counts
        self.uploads[upload.id] = upload

    def begin(self, bucket: str, key: str, headers: dict[str, str]) -> PendingUpload:
        upload = PendingUpload(bucket, key, os.urandom(16).hex().upper(), headers, time.time())
        (self._data / upload.id).mkdir()
        row = asdict(upload)
        del row["parts"]
        _write(self._data / upload.id / "upload.json", row)
        with self.lock:
            self.uploads[upload.id] = upload
        return upload

    def receive(self, name: str, number: int, body: Iterable[bytes | memoryview]) -> Path:
        """Write a body beside the upload `name`; it counts once `keep` renames it.

        Without bodies there is no MD5 either, because it costs more than all the rest.
        """
        folder = self._data / name
        folder.mkdir(exist_ok=True)
        path = folder / f"{os.urandom(8).hex()}.new"
        crc, length, digest = 0, 0, hashlib.md5()
        try:
            with open(path, "wb", buffering=0) as file:
                for view in body:
                    crc, length = CRC64_XZ.update(view, crc), length + len(view)
                    if not self._discard:
                        digest.update(view)
                        file.write(view)
        except BaseException:
            path.unlink()
            raise
        etag = f"{crc:032X}" if self._discard else digest.hexdigest().upper()
        if self.unique_etags:
            etag = os.urandom(16).hex().upper()
        words = f"{number}", f"{time.time_ns():x}", f"{length:x}", f"{crc:x}", etag
        return path.rename(path.with_name("-".join(words) + ".new"))

    def keep(self, path: Path) -> Piece:
        return Piece.of(path.rename(path.with_suffix("")))

    def add_part(self, upload: PendingUpload, received: Path) -> Piece:
        piece = self.keep(received)
        with self.lock:
            old = upload.parts.get(piece.number)
            upload.parts[piece.number] = piece
        if old is not None:
            Path(old.path).unlink(missing_ok=True)
        return piece

    def publish(self, made: StoredObject) -> None:
        """Put an object in the place of the one of its name, if there is one."""
        name = hashlib.sha256(f"{made.bucket}/{made.key}".encode()).hexdigest()
        with self.lock:
            old = self.objects.get((made.bucket, made.key))
            _write(self._objects / f"{name}.json", asdict(made))
            self.objects[made.bucket, made.key] = made
            upload = self.uploads.pop(made.upload, None)
        if upload is not None:
            (self._data / upload.id / "upload.json").unlink()
            used = {piece.path for piece in made.pieces}
            for piece in upload.parts.values():
                if piece.path not in used:
                    Path(piece.path).unlink()
        if old is not None:
            shutil.rmtree(self._data / old.upload)

    def delete(self, bucket: str, key: str) -> None:
        name = hashlib.sha256(f"{bucket}/{key}".encode()).hexdigest()
        with self.lock:
            old = self.objects.pop((bucket, key), None)
            (self._objects / f"{name}.json").unlink(missing_ok=True)
        if old is not None:
            shutil.rmtree(self._data / old.upload)

    def abort(self, upload: PendingUpload) -> None:
        with self.lock:
            self.uploads.pop(upload.id, None)
        (self._data / upload.id / "upload.json").unlink(missing_ok=True)
        shutil.rmtree(self._data / upload.id, ignore_errors=True)
