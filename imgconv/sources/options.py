"""How images are read: what is believed of them, and which other files they may need."""

import os
from dataclasses import dataclass

from imgconv.errors import OptionError
from imgconv.units import TiB

MAX_VIRTUAL_SIZE = 64 * TiB
LARGEST = 1 << 62  # so that no offset overflows
MAX_PIECES = 1 << 22  # 100 MiB for us, and as much again while they are read
NONE, SAME_FOLDER = "none", "same-folder"


@dataclass(slots=True)
class Budget:
    """In how many pieces all images that a disk is made of may still be."""

    pieces: int = MAX_PIECES


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What to know and to allow when an image is opened.

    Args:
        allow_references: which of the files that an image names (backing files, data files,
            extents, parents) may be opened: "none"; "same-folder", those beside it that are
            named without a folder and are no links; or paths of files, or of folders for
            the files right in them.
        max_virtual_size: bytes of the largest disk that an image may declare.
        snapshot: name or id of an internal snapshot (QCOW2) to read in place of the present
            state.
    """

    allow_references: str | tuple[str, ...] = NONE
    max_virtual_size: int = MAX_VIRTUAL_SIZE
    snapshot: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_virtual_size <= LARGEST:
            raise OptionError(
                f"max_virtual_size={self.max_virtual_size}: must be from 1 to {LARGEST}"
            )
        allowed = self.allow_references
        if isinstance(allowed, str) and allowed not in (NONE, SAME_FOLDER):
            object.__setattr__(self, "allow_references", tuple(allowed.split(",")))
        if isinstance(self.allow_references, tuple):
            for path in self.allow_references:
                if not os.path.exists(path):
                    raise OptionError(f"allow_references={path}: there is no such file")
