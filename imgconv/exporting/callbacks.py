"""Callers' functions while a task calls them: it waits for them, so they cannot wait for it."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar, TypeVarTuple

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

_TASKS: ContextVar[tuple[str, ...]] = ContextVar("tasks that wait for this thread", default=())


def called_by(
    task: str, function: Callable[[*Arguments], Result]
) -> Callable[[*Arguments], Result]:
    """Return a function of the caller's for a task to call."""

    def call(*arguments: *Arguments) -> Result:
        token = _TASKS.set((*_TASKS.get(), task))
        try:
            return function(*arguments)
        finally:
            _TASKS.reset(token)

    return call


def is_called_by(task: str) -> bool:
    """Say whether we are in a function that a task calls, and that it waits for."""
    return task in _TASKS.get()
