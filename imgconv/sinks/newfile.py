"""A new file that is in its folder, but not under its name, until it is whole."""

import os


class NewFile:
    """A file without a name (O_TMPFILE), or a passing one where there are no such files.

    `fd` is open for reading and writing. Errors are OSErrors.
    """

    def __init__(self, folder: int, name: str):
        self._folder, self._name = folder, name
        self._temporary: str | None = None
        # Linux and libc refuse a file without a name with one of several errors; what
        # really stands in the way will stop the second attempt as well.
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            self.fd = os.open(".", flags | os.O_TMPFILE, 0o666, dir_fd=folder)
        except OSError:
            passing = self._passing_name()
            self.fd = os.open(passing, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
            self._temporary = passing

    def _passing_name(self) -> str:
        # Cut, as the output's own name may already be as long as names can be.
        return f".{self._name[:50]}.{os.urandom(6).hex()}.imgconv"

    def publish(self, *, clobber: bool) -> None:
        """Give the file its name; FileExistsError unless it may replace another one."""
        try:
            self._link(self._name)  # one step, and it never replaces anything
            return
        except FileExistsError:
            if not clobber:
                raise
        except OSError:
            if self._temporary is None or not clobber:
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
        origin = self._temporary or f"/proc/self/fd/{self.fd}"
        os.link(
            origin,
            name,
            src_dir_fd=self._folder,
            dst_dir_fd=self._folder,
            follow_symlinks=True,
        )

    def close(self) -> None:
        """Close the file, which is gone then unless it has its name."""
        try:
            if self._temporary is not None:
                os.unlink(self._temporary, dir_fd=self._folder)
        finally:
            os.close(self.fd)
