"""The chain of causes of a failed request ends where the request began."""

import socket
import ssl

import pytest

from imgconv.errors import Cancelled, StoreUnavailable
from imgconv.stores.causes import causes
from imgconv.stores.transport import Transport


class Signal(BaseException):
    """What ends a process, and is being handled while it cleans up."""


@pytest.mark.parametrize("handled", [Signal(), Cancelled("cancelled"), KeyError("theirs")])
def test_what_was_handled_already_is_no_cause(handled: BaseException) -> None:
    first, last = ConnectionResetError("reset"), OSError("failed")
    last.__context__, first.__context__ = first, handled
    assert list(causes(last, handled)) == [last, first]
    assert list(causes(last, None))[2:] == ([handled] if isinstance(handled, KeyError) else [])


@pytest.mark.parametrize("error", [Signal(), Cancelled("cancelled"), OSError("failed")])
def test_an_error_without_a_cause_is_its_own(error: BaseException) -> None:
    assert list(causes(error, None)) == [error]


def test_a_request_made_while_another_failure_is_handled_tells_of_its_own() -> None:
    """As whoever turns to another store does, in the handler of what the first one raised."""
    transport = Transport("this test", connect=5, read=5)
    try:
        raise ssl.SSLCertVerificationError("the first store's")
    except OSError:
        with (
            pytest.raises(StoreUnavailable, match="Connection refused"),
            transport.exchange("object", "GET", f"http://127.0.0.1:{closed_port()}/", {}),
        ):
            pass


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
