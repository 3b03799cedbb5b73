"""What a library's exception came from."""

from collections.abc import Iterator

from imgconv.errors import ImgconvError


def causes(error: BaseException, handled: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and what it came from, the very first cause last.

    `handled` is what was being handled already when the library was called, as
    `sys.exception()` told then: it has the exceptions of what is done about it in its wake,
    but is the cause of none. Neither is an error of ours, or a signal.
    """
    yield error
    found = error.__cause__ or error.__context__
    while isinstance(found, Exception) and not isinstance(found, ImgconvError):
        if found is handled:
            return
        yield found
        found = found.__cause__ or found.__context__
