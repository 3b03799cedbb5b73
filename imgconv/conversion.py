"""What is asked for: one disk, in one format, under one name."""

import os
from dataclasses import dataclass

from imgconv.formats import check_size
from imgconv.formats.base import Disk, Format, Writer
from imgconv.identity import Identity
from imgconv.outputs import is_stdout
from imgconv.sources.base import Source


@dataclass(frozen=True, slots=True, eq=False)
class Conversion:
    """All that decides which bytes are made; `target` is a path or a URL."""

    disk: Source
    output: Format
    identity: Identity
    target: str

    def writer(self) -> Writer:
        """Return a fresh writer; LimitExceeded when the disk is too big for the format."""
        check_size(self.output, self.disk.size)
        name = os.path.basename(self.target)
        if is_stdout(self.target):
            name = f"disk.{self.output.name}"
        return self.output.writer(Disk(self.disk.size, self.identity, name))
