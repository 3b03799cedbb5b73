"""Opening files that an image names, which only the user's word allows.

A path is resolved once and then walked from folder to folder, none of which may be a link by
then: what was allowed is what is opened, whatever others do to the folders meanwhile.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from imgconv.errors import ImageUnsupported, OptionError, SourceUnreadable
from imgconv.sources import open_image
from imgconv.sources.base import Source
from imgconv.sources.checked import ImageFile
from imgconv.sources.file import FileSource
from imgconv.sources.options import NONE, SAME_FOLDER
from imgconv.sources.probe import choose_format

MAX_CHAIN = 64  # images each of which needs the next


def open_reference(image: ImageFile, named: str, what: str) -> FileSource:
    """Open the file that the image calls `named` and `what` it is to be, such as "a parent".

    A name is a path, beginning at the image's folder, and never anything else. Raises
    ImageUnsupported when it is not among the allowed ones, and SourceUnreadable.
    """
    path = _allowed_path(image, named)
    if path is None:
        raise ImageUnsupported(
            f"{image.file.name}: needs {what}, {named!a}, which is not allowed "
            "(--allow-references)"
        )
    try:
        found = _open(image, path)
    except SourceUnreadable as error:
        error.add_note(f"named by {image.file.name} as {what}")
        raise
    if any(found.is_same(file) for file in (*image.chain, image.file)):
        found.close()
        raise ImageUnsupported(f"{image.file.name}: needs itself as {what}")
    if len(image.chain) >= MAX_CHAIN:
        found.close()
        raise ImageUnsupported(f"{image.file.name}: more than {MAX_CHAIN} images in a chain")
    return found


def open_below(image: ImageFile, named: str, what: str, format_name: str | None) -> Source:
    """Open the disk that shows through where the image says nothing.

    Its format is what the image says, or else what it looks like. Raises what
    `open_reference` and opening that disk raise.
    """
    file = open_reference(image, named, what)
    try:
        try:
            name = choose_format(file, format_name)
        except OptionError as error:
            raise ImageUnsupported(
                f"{image.file.name}: needs {what} to be in format {format_name!a}"
            ) from error
        chain = (*image.chain, image.file)
        return open_image(file, name, image.options, chain, image.cancelled, image.budget)
    except BaseException:
        file.close()
        raise


def _allowed_path(image: ImageFile, named: str) -> str | None:
    """Return the path to open, without links in it, or None for a file that is forbidden."""
    allowed = image.options.allow_references
    if allowed == NONE or not isinstance(image.file, FileSource) or "\0" in named or not named:
        return None
    folder = os.path.dirname(os.path.realpath(image.file.name))
    if allowed == SAME_FOLDER:
        plain = os.path.basename(named) == named and named not in (".", "..")
        return os.path.join(folder, named) if plain else None
    path = os.path.realpath(os.path.join(folder, named))
    for known in map(os.path.realpath, allowed):
        if known in (path, os.path.dirname(path)):
            return path
    return None


def _open(image: ImageFile, path: str) -> FileSource:
    """Open a path that has no links in it; SourceUnreadable if it has some by now."""
    allowed = image.options.allow_references
    try:
        with _folder(os.path.dirname(path)) as folder:
            if allowed == SAME_FOLDER:
                _check_beside(image, path, folder)
            status = _status(os.path.basename(path), folder)
            _check_kind(path, status.st_mode, allowed)
            found = FileSource(path, within=folder)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceUnreadable(f"{path}: {reason}") from error
    if not found.same_file(status):
        found.close()
        raise SourceUnreadable(f"{path}: was replaced while it was opened")
    return found


@contextmanager
def _folder(path: str) -> Iterator[int]:
    """Walk to a folder, through no link; yield its descriptor. Raises OSError."""
    at = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        for name in path.split("/"):
            if name:
                flags = os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW
                at, above = os.open(name, flags, dir_fd=at), at
                os.close(above)
        yield at
    finally:
        os.close(at)


def _status(name: str, folder: int) -> os.stat_result:
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


def _check_beside(image: ImageFile, path: str, folder: int) -> None:
    """Refuse a folder in which the image is not, or is not any more."""
    assert isinstance(image.file, FileSource)
    own = os.path.basename(os.path.realpath(image.file.name))
    if not image.file.same_file(_status(own, folder)):
        raise SourceUnreadable(f"{path}: is not in the folder of {image.file.name} any more")


def _check_kind(path: str, mode: int, allowed: str | tuple[str, ...]) -> None:
    """Refuse what is no file, or a block device that the user named, before it is opened:
    the other end of a device or a FIFO would feel it."""
    named = isinstance(allowed, tuple) and path in map(os.path.realpath, allowed)
    if not stat.S_ISREG(mode) and not (named and stat.S_ISBLK(mode)):
        raise SourceUnreadable(f"{path}: is not a regular file")
