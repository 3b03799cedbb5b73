"""Memory of whole pages, for what the kernel copies into."""

import mmap
from contextlib import suppress

from imgconv.errors import OutOfResources

_OURS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # what Python would share has small pages


def page_buffer(size: int) -> memoryview:
    """Return so many bytes, zeros, in huge pages where there are some: each is faulted in
    once, and copied to up to twice as fast. Raises OutOfResources."""
    try:
        pages = mmap.mmap(-1, size, flags=_OURS)
    except OSError as error:
        raise OutOfResources(f"no memory for a buffer of {size} bytes") from error
    with suppress(OSError):  # a kernel may know none
        pages.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(pages)
