"""The file sink: sparse, invisible until it is whole, durable when it is visible."""

import os
import stat
from contextlib import suppress
from os.path import samestat

from imgconv import native
from imgconv.errors import OutputExists, OutputRefused, WriteFailed
from imgconv.sinks.base import reread_path
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
        self._temporary: str | None = None
        self._folder = self._fd = -1
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
            self._fd = self._create()
            self._writing = native.Target(self._fd)
        except (OSError, ValueError) as error:
            self.abort()
            reason = error.strerror if isinstance(error, OSError) else error
            raise OutputRefused(f"{path}: {reason}") from error

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

    def _create(self) -> int:
        # Linux and libc refuse a file without a name with one of several errors; what
        # really stands in the way will stop the second attempt as well.
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            return os.open(".", flags | os.O_TMPFILE, 0o666, dir_fd=self._folder)
        except OSError:
            name = self._passing_name()
            fd = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=self._folder)
            self._temporary = name
            return fd

    def _passing_name(self) -> str:
        # Cut, as the output's own name may already be as long as names can be.
        return f".{self._name[:50]}.{os.urandom(6).hex()}.imgconv"

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
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise WriteFailed(self._path, error.strerror or str(error)) from error
        return reread_path(self._fd, self._path)

    def prepare(self, size: int) -> None:
        """Set the length, owner and permissions, and flush."""
        try:
            os.ftruncate(self._fd, size)
            self._inherit()
            os.fsync(self._fd)
        except OSError as error:
            raise WriteFailed(self._path, error.strerror or str(error)) from error

    def commit(self, size: int) -> None:
        """Flush, name the file, flush the folder."""
        self.prepare(size)
        try:
            self._published = os.fstat(self._fd)
            self._publish()
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
                os.fchown(self._fd, self._replaced.st_uid, self._replaced.st_gid)
            os.fchmod(self._fd, stat.S_IMODE(self._replaced.st_mode))

    def _publish(self) -> None:
        try:
            self._link(self._name)  # one step, and it never replaces anything
            return
        except FileExistsError:
            if not self._clobber:
                raise
        except OSError:
            if self._temporary is None or not self._clobber:
                raise  # a file system without links can at least rename
        if self._temporary is None:
            # A link cannot replace a name, so the file gets a passing one first.
            name = self._passing_name()
            self._link(name)
            self._temporary = name
        os.replace(
            self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder
        )
        self._temporary = None

    def _link(self, name: str) -> None:
        # Only with a directory descriptor does Python follow the link to the open file.
        origin = self._temporary or f"/proc/self/fd/{self._fd}"
        os.link(
            origin,
            name,
            src_dir_fd=self._folder,
            dst_dir_fd=self._folder,
            follow_symlinks=True,
        )

    def retract(self) -> str:
        """Remove the file if it is still ours; one that it replaced would not come back."""
        try:
            if self._replaced is not None:
                return f"{self._path}: was replaced before that"
            if self._published is None or not samestat(os.stat(self._path), self._published):
                return f"{self._path}: is another one by now, and was left"
            os.unlink(self._path)
        except OSError as error:
            return f"{self._path}: could not be removed again: {error.strerror}"
        return f"{self._path}: was removed again"

    def abort(self) -> None:
        """Drop what has no final name yet."""
        temporary, self._temporary = self._temporary, None
        writing, self._writing = self._writing, None
        fd, self._fd = self._fd, -1
        folder, self._folder = self._folder, -1
        if writing is not None:
            writing.close()
        try:
            if temporary is not None:
                os.unlink(temporary, dir_fd=folder)
        finally:
            for opened in (fd, folder):
                if opened >= 0:
                    os.close(opened)
