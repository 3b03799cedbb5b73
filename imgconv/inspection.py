"""What a file is, as an image: from its headers, its length, and the room it takes."""

from dataclasses import dataclass

from imgconv.sources.base import Source, StoredSource
from imgconv.sources.description import InnerSnapshot, Options, Reference, describe_image


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What is known of an image without reading the disk in it; all sizes in bytes.

    `file_size` is the length of the file, device or object named, `allocated` the room it
    takes on its file system, None where nobody tells. `options` are those of the format, by
    the names they have for writing it. `references` are the files that the image names;
    none was opened, and their names are for showing only. `encryption` is the method, None
    for none; `dirty` (not closed properly) and `corrupt` are None where the format has no
    such mark. `warnings` are one-line remarks.
    """

    source: str
    format: str
    version: str | None
    virtual_size: int
    file_size: int
    allocated: int | None
    options: Options
    references: tuple[Reference, ...]
    encryption: str | None
    dirty: bool | None
    corrupt: bool | None
    snapshots: tuple[InnerSnapshot, ...]
    warnings: tuple[str, ...]


def inspect(file: Source, format_name: str) -> Info:
    """Read the headers of an image of a format, "raw" for none.

    Raises SourceError for headers that cannot be; the file stays the caller's to close.
    """
    found = describe_image(file, format_name)
    return Info(
        source=file.name,
        format=format_name,
        version=found.version,
        virtual_size=found.virtual_size,
        file_size=file.length if isinstance(file, StoredSource) else file.size,
        allocated=file.allocated if isinstance(file, StoredSource) else None,
        options=found.options,
        references=found.references,
        encryption=found.encryption,
        dirty=found.dirty,
        corrupt=found.corrupt,
        snapshots=found.snapshots,
        warnings=found.warnings,
    )
