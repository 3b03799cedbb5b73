"""What formats are called: names, aliases, file name extensions. The only list of them."""

from typing import NamedTuple


class Name(NamedTuple):
    """What else a format is called."""

    extensions: tuple[str, ...]
    aliases: tuple[str, ...] = ()


NAMES = {
    "raw": Name((".raw", ".img"), ("img",)),
    "raw.gz": Name((".raw.gz", ".img.gz")),
    "raw.zst": Name((".raw.zst", ".img.zst")),
    "raw.tar.gz": Name((".tar.gz", ".tgz"), ("tar.gz",)),
    "vhd": Name((".vhd", ".vpc"), ("vpc",)),
    "qcow2": Name((".qcow2",)),
    "vmdk": Name((".vmdk",)),
    "vdi": Name((".vdi",)),
    "vhdx": Name((".vhdx", ".avhdx")),
}


def canonical(name: str) -> str:
    """Return the name an alias stands for; any other text as it is."""
    return next((n for n, other in NAMES.items() if name in other.aliases), name)


def of_file(path: str) -> str | None:
    """Return the name of the format that the end of a file's name (".vmdk") stands for."""
    end = path.lower().rpartition("/")[2][1:]  # a file whose name begins with it is hidden
    return next((n for n, other in NAMES.items() if end.endswith(other.extensions)), None)
