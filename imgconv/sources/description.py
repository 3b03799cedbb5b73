"""What an image says of itself in its headers: nothing that it names is ever opened."""

from dataclasses import dataclass, field
from typing import TypeAlias

Options: TypeAlias = dict[str, int | str | bool]

BACKING, DATA, EXTENT, PARENT = "backing", "data", "extent", "parent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A file that an image names.

    `role` is what the image needs it for: "backing", "data", "extent" or "parent". `name`
    is text to show, in one line, not a path to open; `format` what the image says of
    its format.
    """

    role: str
    name: str
    format: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerSnapshot:
    """A snapshot inside an image; `date` is in seconds since 1970, sizes are in bytes."""

    id: str
    name: str
    date: int
    vm_state_size: int
    disk_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What an image's headers say; sizes in bytes.

    `options` are those it could be made with again, by the names that imgconv has for them,
    and others that its format knows. `dirty` (not closed properly) and `corrupt` are None
    where a format has no mark for that. `warnings` are one-line remarks.
    """

    virtual_size: int
    version: str | None = None
    options: Options = field(default_factory=dict)
    references: tuple[Reference, ...] = ()
    encryption: str | None = None
    dirty: bool | None = None
    corrupt: bool | None = None
    snapshots: tuple[InnerSnapshot, ...] = ()
    warnings: tuple[str, ...] = ()
