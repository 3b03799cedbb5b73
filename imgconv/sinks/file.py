"""The file sink: sparse, invisible until it is whole, durable when it is visible."""

import os
import stat
from contextlib import suppress
from os.path import samestat

from imgconv import native
from imgconv.errors import OutputExists, OutputRefused, WriteFailed
from imgconv.sinks.base import reread_path
from imgconv.sinks.newfile import NewFile
from imgconv.stretch import Stretch


class FileSink:
    """Writes an unnamed file in the output's folder and names it at commit.

    An unnamed file (O_TMPFILE) leaves no litter even after SIGKILL, but for the instant in
    which a whole new file waits under a passing name to replace an old one. Where the
    file system has no unnamed files, a temporary name is used. Zeros are holes. An existing
    output is replaced by commit and never changed before; with `clobber` false it is
    refused.
    """

    parallel = True
    late_head = True

    def __init__(self, path: str, *, clobber: bool = True):
        self._clobber = clobber
        self._folder = -1
        self._file: NewFile | None = None
        self._published: os.stat_result | None = None
        self._writing: native.Target | None = None
        try:
            # A link is followed: it stays, what it points to is replaced.
            self._path = os.path.realpath(path)
            self._name = os.path.basename(self._path)
            self._replaced = self._existing()
            self._folder = os.open(
                os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            )
            self._file = NewFile(self._folder, self._name)
            self._writing = native.Target(self._file.fd)
        except (OSError, ValueError) as error:
            self.abort()
            reason = error.strerror if isinstance(error, OSError) else error
            raise OutputRefused(f"{path}: {reason}") from error
        except BaseException:
            self.abort()
            raise

    def _existing(self) -> os.stat_result | None:
        """Return the status of the file to be replaced, None when there is none."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return None
        if not self._clobber:
            raise OutputExists(f"{self._path}: exists, and is not to be replaced")
        if not stat.S_ISREG(status.st_mode):
            raise OutputRefused(f"{self._path}: is not a regular file")
        return status

    @property
    def _new(self) -> NewFile:
        assert self._file is not None
        return self._file

    def put(self, stretch: Stretch) -> None:
        """Write the pieces; what is never written of a new file is a hole."""
        assert self._writing is not None
        try:
            self._writing.write(stretch)
        except native.FileFailed as error:
            raise WriteFailed(self._path, error.reason, error.offset) from error

    def readable(self, size: int) -> str:
        """Set the length and flush; the file has no final name yet."""
        try:
            os.ftruncate(self._new.fd, size)
        except OSError as error:
            raise WriteFailed(self._path, error.strerror or str(error)) from error
        return reread_path(self._new.fd, self._path)

    def prepare(self, size: int) -> None:
        """Set the length, owner and permissions, and flush."""
        try:
            os.ftruncate(self._new.fd, size)
            self._inherit()
            os.fsync(self._new.fd)
        except OSError as error:
            raise WriteFailed(self._path, error.strerror or str(error)) from error

    def commit(self, size: int) -> None:
        """Flush, name the file, flush the folder."""
        self.prepare(size)
        try:
            self._published = os.fstat(self._new.fd)
            self._new.publish(clobber=self._clobber)
            os.fsync(self._folder)
        except FileExistsError as error:
            raise OutputExists(f"{self._path}: exists, and is not to be replaced") from error
        except OSError as error:
            raise WriteFailed(self._path, error.strerror or str(error)) from error
        self.abort()

    def _inherit(self) -> None:
        """Take over owner, as far as we may, and permissions of the file to be replaced."""
        if self._replaced is not None:
            with suppress(PermissionError):
                os.fchown(self._new.fd, self._replaced.st_uid, self._replaced.st_gid)
            os.fchmod(self._new.fd, stat.S_IMODE(self._replaced.st_mode))

    def replaces(self) -> bool:
        """Say whether there was a file when this one was begun."""
        return self._replaced is not None

    def retract(self) -> str | None:
        """Remove the file if it is still ours."""
        if self._published is None:
            return None
        try:
            if not samestat(os.stat(self._path), self._published):
                return f"{self._path}: is another's, and was left"
            os.unlink(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"{self._path}: could not be removed again: {error.strerror}"
        return f"{self._path}: was removed again"

    def abort(self) -> None:
        """Drop what has no final name yet."""
        writing, self._writing = self._writing, None
        file, self._file = self._file, None
        folder, self._folder = self._folder, -1
        if writing is not None:
            writing.close()
        try:
            if file is not None:
                file.close()
        finally:
            if folder >= 0:
                os.close(folder)
