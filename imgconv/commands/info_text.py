"""What an image is, in lines for people."""

import time
from collections.abc import Iterator

from imgconv.inspection import Info
from imgconv.sources.description import InnerSnapshot, Reference
from imgconv.units import format_size

_ROLES = {"backing": "backing file", "data": "data file"}


def info_lines(found: Info) -> Iterator[str]:
    """Yield a line for everything that is known."""
    yield f"image: {found.source}"
    yield f"format: {found.format}" + (f", version {found.version}" if found.version else "")
    yield f"virtual size: {_size(found.virtual_size)}"
    yield f"file size: {_size(found.file_size)}"
    if found.allocated is not None:
        yield f"allocated: {_size(found.allocated)}"
    if found.options:
        yield f"options: {','.join(_option(*pair) for pair in found.options.items())}"
    for reference in found.references:
        yield _reference(reference)
    if found.encryption is not None:
        yield f"encrypted: {found.encryption}"
    if found.dirty:
        yield "dirty: it was not closed properly"
    if found.corrupt:
        yield "corrupt: it is marked so"
    if found.snapshots:
        yield f"snapshots: {len(found.snapshots)}"
        yield f"  {'id':>4}  {'date (UTC)':19}  {'memory':>12}  {'disk':>12}  name"
    for snapshot in found.snapshots:
        yield _snapshot(snapshot)


def _size(size: int) -> str:
    return f"{format_size(size)} ({size} bytes)"


def _option(name: str, value: object) -> str:
    if isinstance(value, bool):
        return f"{name}={'on' if value else 'off'}"
    return f"{name}={value}"


def _reference(reference: Reference) -> str:
    role = _ROLES.get(reference.role, reference.role)
    kind = f" ({reference.format})" if reference.format else ""
    return f'{role}: "{reference.name}"{kind}, not opened'


def _snapshot(snapshot: InnerSnapshot) -> str:
    date = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(snapshot.date))
    memory, disk = format_size(snapshot.vm_state_size), format_size(snapshot.disk_size)
    return f"  {snapshot.id:>4}  {date}  {memory:>12}  {disk:>12}  {snapshot.name}"
