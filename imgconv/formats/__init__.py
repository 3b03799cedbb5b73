"""The output formats: one table, loaded on use.

Each row names a frozen options class; calling `writer(disk)` on an instance of it makes
the layout machine. Other packages add formats with entry points in the group
`imgconv.formats`; those cannot shadow a built-in one.
"""

from imgconv.errors import LimitExceeded, UsageError
from imgconv.formats.base import Format
from imgconv.loading import load
from imgconv.names import canonical
from imgconv.options import option_choices, parse_options

TABLE = {
    "raw": "imgconv.formats.raw:Raw",
    "raw.gz": "imgconv.formats.raw_gz:RawGz",
    "raw.zst": "imgconv.formats.raw_zst:RawZst",
    "raw.tar.gz": "imgconv.formats.raw_tar_gz:RawTarGz",
    "vhd": "imgconv.formats.vhd:Vhd",
    "qcow2": "imgconv.formats.qcow2:Qcow2",
    "vmdk": "imgconv.formats.vmdk:Vmdk",
    "vdi": "imgconv.formats.vdi:Vdi",
    "vhdx": "imgconv.formats.vhdx:Vhdx",
}


def format_names() -> tuple[str, ...]:
    """Names of the built-in formats."""
    return tuple(TABLE)


def format_class(name: str) -> type[Format]:
    """Return the options class of a format, by name or alias; UsageError when unknown."""
    target = TABLE.get(canonical(name))
    if target is not None:
        found: type[Format] = load(target)
        return found
    from importlib import metadata  # costs a third of our start-up, and is rarely needed

    for entry in metadata.entry_points(group="imgconv.formats", name=name):
        loaded: type[Format] = entry.load()
        return loaded
    raise UsageError(f"unknown format {name!r}; formats: {', '.join(TABLE)}")


def format_from_text(name: str, options: str = "") -> Format:
    """Make a format from its name and "key=value,..." options.

    Raises UsageError for an unknown name and OptionError for a bad option.
    """
    return parse_options(format_class(name), options)


def check_size(target: Format, size: int) -> None:
    """Raise LimitExceeded, naming formats that fit, when the disk is too big for `target`."""
    if size > target.max_size:
        disks = [name for name in TABLE if not name.startswith("raw.")]
        fits = filter(None, (_that_fits(name, size) for name in disks))
        raise LimitExceeded(target.name, size, target.max_size, tuple(fits))


def _that_fits(name: str, size: int) -> str | None:
    """Return how to call for a format that holds `size` bytes: its name, if need be with
    the subformat that does."""
    kind = format_class(name)
    if kind().max_size >= size:
        return name
    for text in option_choices(kind, "subformat"):
        if parse_options(kind, text).max_size >= size:
            return f"{name} with {text}"
    return None
