"""What a hostile image is, how it is opened, and how that must end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hostile.made import Made

MALFORMED, UNSUPPORTED, MISMATCH = "image-malformed", "image-unsupported", "format-mismatch"
UNREADABLE, ENCRYPTED_IMAGE = "source-unreadable", "image-encrypted"


@dataclass(frozen=True, kw_only=True)
class Case:
    """An image, how it is opened, and how it must end.

    `beside` are files next to it, `size` is the largest disk in bytes that is believed.
    """

    make: Callable[[], Made]
    words: str
    code: str = MALFORMED
    name: str = ""
    format: str = ""
    allowed: str = "none"
    beside: Mapping[str, bytes] | None = None
    snapshot: str | None = None
    size: int | None = None


def case(make: Callable[[], Made], words: str, code: str = MALFORMED, **more: object) -> Case:
    return Case(make=make, words=words, code=code, **more)  # type: ignore[arg-type]
