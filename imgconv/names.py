"""What formats are called: names, aliases, file name extensions. The only list of them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Name:
    """What else a format is called."""

    extensions: tuple[str, ...]
    aliases: tuple[str, ...] = ()


NAMES = {
    "raw": Name((".raw", ".img"), ("img",)),
    "vhd": Name((".vhd", ".vpc"), ("vpc",)),
    "qcow2": Name((".qcow2",)),
    "vmdk": Name((".vmdk",)),
    "vdi": Name((".vdi",)),
}


def canonical(name: str) -> str:
    """Return the name an alias stands for; any other text as it is."""
    return next((n for n, other in NAMES.items() if name in other.aliases), name)


def of_extension(extension: str) -> str | None:
    """Return the name of the format that a file name extension (".vmdk") stands for."""
    lower = extension.lower()
    return next((n for n, other in NAMES.items() if lower in other.extensions), None)
