"""`-o help` and `--store help`: the options of formats and stores."""

from itertools import pairwise

from imgconv import terminal


def wants_option_help(words: list[str]) -> bool:
    """Say whether -o or --store asks for help."""
    return _asks_help("-o", words) or _asks_help("--store", words)


def _asks_help(option: str, words: list[str]) -> bool:
    given = [w.removeprefix(option).lstrip("=") for w in words if w.startswith(option)]
    given += [after for word, after in pairwise(words) if word == option]
    return any("help" in text.split(",") for text in given)


def option_help(words: list[str]) -> int:
    """List the options of the format given with -O, or of all, or those of the stores."""
    from imgconv.formats import format_class, format_names
    from imgconv.stores import TABLE, store_class

    if _asks_help("--store", words):
        for name in TABLE:
            _describe(name, store_class(name))
        return 0
    chosen = [b for a, b in pairwise(words) if a == "-O"]
    for name in chosen or format_names():
        _describe(name, format_class(name))
    return 0


def _describe(name: str, kind: type[object]) -> None:
    from imgconv.options import describe_options

    rows = describe_options(kind)
    terminal.show(f"{name}:" if rows else f"{name}: no options")
    for accepts, default, about in rows:
        terminal.show(f"  {accepts}")
        terminal.show(f"      {about}" + (f" (default {default})" if default else ""))
