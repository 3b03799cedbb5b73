"""What is asked for: one disk, in one format, under one name."""

import os
from dataclasses import asdict
from typing import NamedTuple

from imgconv.errors import OptionError, UsageError
from imgconv.formats import check_size, format_class, format_names
from imgconv.formats.base import Disk, Format, Writer
from imgconv.identity import Identity
from imgconv.kernels import kernel
from imgconv.names import of_file
from imgconv.outputs import is_stdout
from imgconv.report import Report
from imgconv.sources.base import Source
from imgconv.tally import Tally


class Conversion(NamedTuple):
    """All that decides which bytes are made; `target` is a path or a URL."""

    disk: Source
    output: Format
    identity: Identity
    target: str

    @classmethod
    def of(
        cls, disk: Source, options: Format | str | None, identity: str | None, target: str
    ) -> "Conversion":
        """Make one from what a user says. Raises UsageError and OptionError."""
        output = format_for(target) if options is None else format_of(options)
        return cls(disk, output, _identity(disk, identity), target)

    def writer(self) -> Writer:
        """Return a fresh writer; LimitExceeded when the disk is too big for the format."""
        check_size(self.output, self.disk.size)
        name = os.path.basename(self.target)
        if is_stdout(self.target):
            name = f"disk.{self.output.name}"
        return self.output.writer(Disk(self.disk.size, self.identity, name))

    def report(
        self,
        tally: Tally,
        *,
        source_format: str,
        size: int,
        passes: int,
        threads: int,
        seconds: float,
        verified: bool = False,
        workers: tuple[str, ...] = (),
    ) -> Report:
        """Return the report of a conversion that has made `size` bytes."""
        return Report(
            source=self.disk.name,
            source_format=source_format,
            output=self.target,
            format=self.output.name,
            options=asdict(self.output),  # type: ignore[call-overload]
            identity=self.identity.text,
            virtual_size=self.writer().size,
            data_bytes=tally.data,
            output_size=size,
            written_bytes=tally.written,
            passes=passes,
            threads=threads,
            kernel=kernel(),
            seconds=seconds,
            warnings=self.disk.warnings,
            verified=verified,
            workers=workers,
        )


def format_for(path: str) -> Format:
    """Return the format that a file name's extension stands for, with default options.

    Raises UsageError, listing the formats, when it stands for none.
    """
    name = of_file(path)
    if name is None:
        choice = ", ".join(format_names())
        raise UsageError(f"{path}: its name does not tell the format; choose one: {choice}")
    return format_class(name)()


def format_of(options: Format | str) -> Format:
    """Return the options object, default options where only a name was given."""
    if isinstance(options, type):
        raise OptionError(f"options={options.__name__}: call it: {options.__name__}()")
    return format_class(options)() if isinstance(options, str) else options


def _identity(disk: Source, text: str | None) -> Identity:
    """Return what the user calls the disk, or else what it is called anyway."""
    if text is None:
        return disk.identity
    if not text:
        raise OptionError("identity='': an empty name would be every disk's")
    return Identity(text)
