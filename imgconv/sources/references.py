"""Opening files that an image names, which only the user's word allows."""

import os
import stat

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
    refusal = ImageUnsupported(
        f"{image.file.name}: needs {what}, {named!a}, which is not allowed (--allow-references)"
    )
    path = _allowed_path(image, named)
    if path is None:
        raise refusal
    try:
        _check_kind(path, image.options.allow_references)
        found = FileSource(path, follow=False)
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


def _check_kind(path: str, allowed: str | tuple[str, ...]) -> None:
    """Refuse what is no file, or a block device that the user named, before it is opened:
    the other end of a device or a FIFO would feel it."""
    try:
        mode = os.lstat(path).st_mode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceUnreadable(f"{path}: {reason}") from error
    named = isinstance(allowed, tuple) and path in map(os.path.realpath, allowed)
    if not stat.S_ISREG(mode) and not (named and stat.S_ISBLK(mode)):
        raise SourceUnreadable(f"{path}: is not a regular file")


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
