"""The chain of causes of a failed request ends where the request began."""

import pytest

from imgconv.errors import Cancelled
from imgconv.stores.causes import causes


class Signal(BaseException):
    """What ends a process, and is being handled while it cleans up."""


@pytest.mark.parametrize("handled", [Signal(), Cancelled("cancelled")])
def test_what_was_handled_already_is_no_cause(handled: BaseException) -> None:
    first, last = ConnectionResetError("reset"), OSError("failed")
    last.__context__, first.__context__ = first, handled
    assert list(causes(last)) == [last, first]


@pytest.mark.parametrize("error", [Signal(), Cancelled("cancelled"), OSError("failed")])
def test_an_error_without_a_cause_is_its_own(error: BaseException) -> None:
    assert list(causes(error)) == [error]
