"""What tells the URL of an object from the path of a file."""

import re

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)


def split_url(location: str) -> tuple[str, str] | None:
    """Return what stands before and after "://", None when `location` is a path."""
    match = _URL.fullmatch(location)
    return (match[1], match[2]) if match else None


def scheme_of(location: str) -> str | None:
    """Return the scheme of a URL, None when `location` is no URL but a path."""
    parts = split_url(location)
    return parts[0] if parts else None
