"""What a library's exception came from."""

from collections.abc import Iterator

from imgconv.errors import ImgconvError


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it came from, the very first cause last.

    What was being handled already when the library was called, an error of ours or a
    signal, has the exceptions of the clean-up in its wake, but is the cause of none.
    """
    yield error
    found = error.__cause__ or error.__context__
    while isinstance(found, Exception) and not isinstance(found, ImgconvError):
        yield found
        found = found.__cause__ or found.__context__
