"""Options as text: from "cluster_size=4k,compat=0.10" to a frozen options object.

Each option is a dataclass field made by one of the functions below, which say how to
read it and what it accepts. The rules of a format, which hold for library callers as
well, stand in the options class itself (`__post_init__`).
"""

import re
from collections.abc import Callable
from dataclasses import field, fields
from typing import Any, TypeVar

from imgconv.errors import OptionError
from imgconv.units import parse_size

Options = TypeVar("Options")


def _option(
    default: Any, kind: type, read: Callable[[str], Any], accepts: str, about: str
) -> Any:
    metadata = {"kind": kind, "read": read, "accepts": accepts, "about": about}
    return field(default=default, metadata=metadata)


def size_option(default: int | None, accepts: str, about: str) -> Any:
    """Return a field for a size in bytes, written as 65536 or 64k."""
    return _option(default, int, parse_size, accepts, about)


def number_option(default: int | None, accepts: str, about: str) -> Any:
    """Return a field for a whole number."""
    return _option(default, int, _read_number, accepts, about)


def text_option(default: str | None, accepts: str, about: str) -> Any:
    """Return a field for free text."""
    return _option(default, str, str, accepts, about)


def choice_option(default: str | None, choices: tuple[str, ...], about: str) -> Any:
    """Return a field for one of a few words."""
    return _option(default, str, str, "|".join(choices), about)


def switch_option(default: bool, about: str) -> Any:
    """Return a field for on or off."""
    return _option(default, bool, _read_switch, "on|off", about)


def _read_number(text: str) -> int:
    if re.fullmatch("[0-9]{1,20}", text) is None:
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def _read_switch(text: str) -> bool:
    try:
        return {"on": True, "yes": True, "off": False, "no": False}[text]
    except KeyError:
        raise ValueError(f"{text!r} is neither on nor off") from None


def check_fields(options: object) -> None:
    """Raise OptionError unless each value has the type of its field and, of a choice, is
    one of the words; every options class calls this first."""
    for f in fields(options):  # type: ignore[arg-type]
        value, kind = getattr(options, f.name), f.metadata["kind"]
        if type(value) is not kind and value is not f.default:
            raise OptionError(f"{f.name}={value!r}: must be of type {kind.__name__}")
        choices = f.metadata["accepts"].split("|")
        if value is None:
            continue
        if kind is str and len(choices) > 1 and value not in choices:
            raise OptionError(f"{f.name}={value}: must be one of {f.metadata['accepts']}")


def parse_options(kind: type[Options], text: str) -> Options:
    """Make an options object from "key=value,key=value"; OptionError says what is wrong."""
    known = {f.name: f.metadata for f in fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if key not in known:
            choice = ", ".join(known) or "none"
            raise OptionError(f"unknown option {key!r}; options: {choice}")
        if not equals:
            raise OptionError(f"option {key!r} needs a value: {key}={known[key]['accepts']}")
        if key in values:
            raise OptionError(f"option {key!r} is given twice")
        try:
            values[key] = known[key]["read"](value)
        except ValueError as error:
            raise OptionError(f"option {key!r}: {error}") from error
    return kind(**values)


def option_choices(kind: type[object], name: str) -> list[str]:
    """Return "name=word" for each word that a choice accepts, none without such an option."""
    accepts = [f.metadata["accepts"] for f in fields(kind) if f.name == name]  # type: ignore[arg-type]
    return [f"{name}={word}" for words in accepts for word in words.split("|")]


def describe_options(kind: type[object]) -> list[tuple[str, str, str]]:
    """Return (key=accepted, default, meaning) for every option of a format."""
    rows = []
    for f in fields(kind):  # type: ignore[arg-type]
        rows.append(
            (f"{f.name}={f.metadata['accepts']}", _shown(f.default), f.metadata["about"])
        )
    return rows


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return "" if default is None else str(default)
