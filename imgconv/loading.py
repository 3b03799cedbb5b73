"""Loading code only when it is wanted."""

from importlib import import_module
from typing import Any


def load(place: str) -> Any:
    """Return what a row of a table names as "module:attribute"."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
