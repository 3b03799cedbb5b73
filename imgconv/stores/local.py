"""A folder as an object store: uploads that outlive a process, without any server.

    <folder>/<key>                          objects are plain files
    <folder>/.imgconv-uploads/<id>/         an unfinished upload
        upload.json                         its key and metadata; goes last
        00001, 00002, ...                   parts: content, then a trailer
        object                              the object while it is put together
        *.tmp                               parts while they are written

Everything is written under a passing name, flushed and then renamed or linked, so that
after a kill or a power failure a name stands for a whole thing or for nothing. Zeros are
holes, in parts and in objects. What an object carries beside its bytes is in an extended
attribute that names the very file it was made for: on a copy and on a file changed since it
counts for nothing, and the object is then a plain file, of which no metadata and no checksum
are known. On file systems without such attributes nobody could tell whose an object is, and
no upload is begun.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import ClassVar

from imgconv.body import Body
from imgconv.errors import (
    BucketMissing,
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
from imgconv.objectstore import BucketInfo, Limits, ObjectInfo, Part, Upload
from imgconv.stores import local_files as files
from imgconv.stores.local_files import FOLDER, OBJECT, RECORD, errors_of, opened
from imgconv.units import KiB, MiB, TiB

HIDDEN = ".imgconv-uploads"
LIMITS = Limits(
    min_part=1,
    max_part=TiB,
    max_parts=10_000,
    max_object=(1 << 63) - MiB,  # so that no offset overflows
    checksum="crc64-nvme",
)

_ID = re.compile("[0-9a-f]{32}")
_MAX_RECORD = 3 * KiB  # ext4 keeps all attributes of a file in one block of 4
_LINKLESS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True, slots=True)
class Local:
    """A folder of this machine; it has no options."""

    scheme: ClassVar[str] = "file"

    def open(self, bucket: str) -> "LocalStore":
        """Return the store of a folder; UsageError unless its path is absolute."""
        if not os.path.isabs(bucket) or "\0" in bucket:
            raise UsageError(f"file://{bucket!r}: a folder needs an absolute path")
        return LocalStore(bucket)


class LocalStore:
    """Implements `imgconv.objectstore.PartStore`; any number of processes may share it.

    `complete` needs as much room again as the parts take, except where the file system
    shares blocks between files (XFS, Btrfs).
    """

    limits = LIMITS

    def __init__(self, folder: str):
        self._folder = folder
        self.name = f"file://{folder}"

    def begin(self, key: str, metadata: Mapping[str, str]) -> Upload:
        """Begin a multipart upload.

        Raises StoreRefused when the metadata exceed 3 KiB, and StoreCannot where the file
        system has no extended attributes to keep them in.
        """
        lower = {name.lower(): value for name, value in metadata.items()}
        record = json.dumps({"key": self._checked(key), "metadata": lower}).encode()
        if len(record) > _MAX_RECORD:
            raise StoreRefused(f"{self._url(key)}: its metadata take more than 3 KiB")
        self._sweep()
        try:
            with errors_of(self._url(key), StoreRefused):
                return self._begin(Upload(key, os.urandom(16).hex()), record)
        except BaseException:
            with suppress(StoreError):
                self._sweep()
            raise

    def put_part(
        self, upload: Upload, number: int, body: Body, *, crc: int | None, md5: bytes | None
    ) -> Part:
        """Write a part; ContentDamaged when its bytes are not those of `crc` or `md5`."""
        self._check_size(upload, number, len(body))
        digest = hashlib.md5(usedforsecurity=False)
        with self._held(upload) as (_, folder), files.new_part(folder, number) as part:
            for view in body.views():
                part.data(view)
                if md5 is not None:
                    digest.update(view)
            if crc not in (None, part.crc) or md5 not in (None, digest.digest()):
                raise ContentDamaged(f"{self._url(upload.key)}: part {number} is damaged")
            return part.publish()

    def copy_part(
        self, upload: Upload, number: int, source_key: str, start: int, length: int
    ) -> Part:
        """Copy a range of another object; its holes cost nothing."""
        self._check_size(upload, number, length)
        with self._held(upload) as (_, folder), closing(self.open(source_key)) as source:
            if not 0 <= start <= start + length <= source.info.size:
                raise StoreRefused(f"{source.name}: has no {length} bytes at {start}")
            with files.new_part(folder, number) as part:
                part.copy(source.fileno(), start, start + length)
                source.verify()
                return part.publish()

    def list_parts(self, upload: Upload) -> Iterator[Part]:
        """Yield the parts in the folder, by number."""
        with self._held(upload) as (_, folder):
            parts = list(files.stored_parts(folder))
        yield from parts

    def list_uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield unfinished uploads of this folder."""
        found = []
        with suppress(UploadGone), self._hidden(self.name) as hidden:
            for name in filter(_ID.fullmatch, os.listdir(hidden)):
                with suppress(FileNotFoundError), opened(name, FOLDER, hidden) as folder:
                    found.append(files.read_record(folder, name)[0])
        yield from (upload for upload in found if upload.key.startswith(prefix))

    def complete(
        self,
        upload: Upload,
        parts: Sequence[Part],
        *,
        size: int,
        crc: int | None,
        exclusive: bool,
    ) -> ObjectInfo:
        """Put the object together beside its parts, then name it in one step.

        Killed after that step and before the parts were removed, it leaves the upload to
        be aborted. ContentDamaged when the parts do not amount to `size` and `crc`,
        StoreCannot when the file system has no links and `exclusive` was asked for.
        """
        url = self._url(upload.key)
        numbers = [part.number for part in parts]
        if not numbers or numbers != sorted(set(numbers)):
            raise StoreRefused(f"{url}: parts are missing or not in order")
        with self._held(upload) as (hidden, folder):
            fcntl.flock(folder, fcntl.LOCK_EX)
            _, metadata = files.read_record(folder, upload.id)  # gone, if somebody was faster
            with files.passing(folder, OBJECT) as fd:
                made = files.assemble(fd, folder, parts, url)
                if made[0] != size or crc not in (None, made[1]):
                    raise ContentDamaged(f"{url}: its parts do not make up the object")
                files.remember(fd, made[1], metadata)
                os.fsync(fd)
                info = files.object_info(fd)
                self._publish(folder, upload.key, exclusive)
            self._remove(hidden, folder, upload.id)
        return info

    def abort(self, upload: Upload) -> None:
        """Remove an upload's folder."""
        with suppress(UploadGone), self._folders(upload) as (hidden, folder):
            fcntl.flock(folder, fcntl.LOCK_EX)
            self._remove(hidden, folder, upload.id)

    def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of a file, None when there is none."""
        try:
            with closing(self.open(key)) as reader:
                return reader.info
        except ObjectMissing:
            return None

    def put(
        self, key: str, content: bytes, metadata: Mapping[str, str], *, exclusive: bool
    ) -> ObjectInfo:
        """Store a small object, as an upload of one part."""
        upload, body = self.begin(key, metadata), Body([memoryview(content)])
        try:
            part = self.put_part(upload, 1, body, crc=None, md5=None)
            size = len(content)
            return self.complete(upload, [part], size=size, crc=None, exclusive=exclusive)
        except BaseException:
            with suppress(StoreError):
                self.abort(upload)
            raise

    def delete(self, key: str) -> None:
        """Delete a file."""
        path = self._path(key)
        with errors_of(self._url(key), StoreRefused), suppress(FileNotFoundError):
            os.unlink(path)
            self._sync()

    def open(self, key: str) -> "LocalReader":
        """Open a file for reading."""
        return LocalReader(self._path(key), self._url(key))

    def inspect(self) -> BucketInfo:
        """Say that the folder is there; it has no region."""
        if not os.path.isdir(self._folder):
            raise BucketMissing(f"{self.name}: there is no such folder")
        return BucketInfo()

    def renew(self) -> bool:
        """A folder asks for no credentials."""
        return False

    def close(self) -> None:
        """Nothing is held between calls."""

    def _url(self, key: str) -> str:
        return f"{self.name.rstrip('/')}/{key}"

    def _checked(self, key: str) -> str:
        if key in ("", ".", "..", HIDDEN) or "/" in key or "\0" in key:
            raise StoreRefused(f"{self._url(key)!r}: {key!r} cannot be the name of a file")
        return key

    def _path(self, key: str) -> str:
        return os.path.join(self._folder, self._checked(key))

    def _check_size(self, upload: Upload, number: int, length: int) -> None:
        if not (1 <= number <= LIMITS.max_parts and length <= LIMITS.max_part):
            url = self._url(upload.key)
            raise StoreRefused(f"{url}: takes no part {number} of {length} bytes")

    @contextmanager
    def _hidden(self, what: str) -> Iterator[int]:
        """Open the folder of all uploads; what is missing in it was an upload."""
        path = os.path.join(self._folder, HIDDEN)
        with errors_of(what, UploadGone), opened(path, FOLDER) as hidden:
            yield hidden

    @contextmanager
    def _folders(self, upload: Upload) -> Iterator[tuple[int, int]]:
        """Open the folder of all uploads and that of one."""
        what = f"{self._url(self._checked(upload.key))}: upload {upload.id}"
        if not _ID.fullmatch(upload.id):
            raise UploadGone(f"{what}: is none of this store")
        with self._hidden(what) as hidden, opened(upload.id, FOLDER, hidden) as folder:
            yield hidden, folder

    @contextmanager
    def _held(self, upload: Upload) -> Iterator[tuple[int, int]]:
        """Open both folders of an upload that is known under this key."""
        with self._folders(upload) as (hidden, folder):
            if files.read_record(folder, upload.id)[0].key != upload.key:
                raise UploadGone(f"{self._url(upload.key)}: upload {upload.id} has another key")
            yield hidden, folder

    def _begin(self, upload: Upload, record: bytes) -> Upload:
        while True:
            with suppress(FileExistsError):
                os.mkdir(os.path.join(self._folder, HIDDEN))
            # Until the record is there, somebody else may take the folders away again.
            with suppress(UploadGone), self._hidden(self.name) as hidden:
                os.mkdir(upload.id, dir_fd=hidden)
                with opened(upload.id, FOLDER, hidden) as folder:
                    fcntl.flock(folder, fcntl.LOCK_EX)
                    started = self._recorded(folder, upload.key, record)
                os.fsync(hidden)
                self._sync()
                return replace(upload, started=started)

    def _recorded(self, folder: int, key: str, record: bytes) -> float:
        try:
            return files.write_record(folder, record)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise StoreCannot(
                    f"{self._url(key)}: its file system has no extended attributes, so that "
                    "nobody could tell whose object it is"
                ) from error
            raise

    def _sweep(self) -> None:
        """Remove what kills have left of folders without a record."""
        with suppress(UploadGone), self._hidden(self.name) as hidden:
            for name in filter(_ID.fullmatch, os.listdir(hidden)):
                # Whoever is about to write the record holds the lock.
                with suppress(OSError), opened(name, FOLDER, hidden) as folder:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if not files.has_record(folder):
                        self._remove(hidden, folder, name)

    def _publish(self, folder: int, key: str, exclusive: bool) -> None:
        try:
            if exclusive:
                os.link(OBJECT, self._path(key), src_dir_fd=folder, follow_symlinks=False)
            else:
                os.replace(OBJECT, self._path(key), src_dir_fd=folder)
        except FileExistsError as error:
            raise OutputExists(
                f"{self._url(key)}: exists, and is not to be replaced"
            ) from error
        except OSError as error:
            if exclusive and error.errno in _LINKLESS:
                raise StoreCannot(
                    f"{self._url(key)}: its file system has no links, so that an object "
                    "made by somebody else meanwhile could not be told"
                ) from error
            raise
        self._sync()

    def _remove(self, hidden: int, folder: int, upload_id: str) -> None:
        """Remove an upload, its record last: what a kill leaves can be removed later."""
        while True:
            for name in sorted(os.listdir(folder), key=RECORD.__eq__):
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
            try:
                os.rmdir(upload_id, dir_fd=hidden)
                break
            except OSError as error:  # a straggler has begun to write a part
                if error.errno != errno.ENOTEMPTY:
                    raise
        with suppress(OSError):
            os.rmdir(os.path.join(self._folder, HIDDEN))

    def _sync(self) -> None:
        with opened(self._folder, os.O_RDONLY | os.O_DIRECTORY) as folder:
            os.fsync(folder)


class LocalReader:
    """Implements `imgconv.objectstore.ObjectReader`."""

    def __init__(self, path: str, name: str):
        self._path, self.name = path, name
        self._fd = -1
        with errors_of(name, ObjectMissing):
            # Without O_NONBLOCK, opening a FIFO would wait for a writer.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                self.close()
                raise ObjectMissing(f"{name}: is not a regular file")
            self.info = files.object_info(self._fd)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer; ObjectChanged when the file was written to or replaced."""
        filled = 0
        with errors_of(self.name, ObjectMissing):
            while filled < len(buffer):
                count = os.preadv(self._fd, [buffer[filled:]], offset + filled)
                if count == 0:
                    break
                filled += count
        self.verify()
        if filled < len(buffer):
            raise StoreRefused(f"{self.name}: ends before {offset + len(buffer)}")

    def verify(self) -> None:
        """Raise ObjectChanged when the name stands for other bytes than at the beginning,
        ObjectMissing when it stands for nothing."""
        with errors_of(self.name, ObjectMissing):
            if files.etag_of(os.stat(self._path)) != self.info.etag:
                raise ObjectChanged(f"{self.name}: was changed while it was read")

    def fileno(self) -> int:
        """Return the descriptor of the file."""
        return self._fd

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
