"""What the S3 library raises, and what it means: one StoreError per outcome.

Nothing of the library's own escapes. Needs botocore.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from imgconv.errors import (
    AccessDenied,
    CredentialsExpired,
    ImgconvError,
    StoreRefused,
    StoreUnavailable,
)
from imgconv.stores.s3_codes import Refusal, line
from imgconv.stores.s3_wire import Incomplete

_INTERRUPTIONS = (
    Incomplete,
    ConnectionError,
    HTTPClientError,
    HTTPError,
    IncompleteReadError,
    ResponseParserError,
    OSError,
)
_NO_FRESH_CREDENTIALS = (
    CredentialRetrievalError,
    MetadataRetrievalError,
    SSOError,
    TokenRetrievalError,
)


@contextmanager
def explained(what: str, *, reading: bool = False) -> Iterator[None]:
    """Raise what goes wrong inside as a StoreError whose one line begins with `what`.

    A condition that does not hold means ObjectChanged when `reading`, else OutputExists.
    """
    try:
        yield
    except ClientError as error:
        raise _refusal(what, error.response, reading) from error
    except _INTERRUPTIONS as error:
        raise _interruption(what, error) from error
    except (BotoCoreError, RuntimeError) as error:
        raise _mistake(what, error) from error


def code_of(error: BaseException) -> str:
    """Return the service's own code for what became a StoreError, "" without one."""
    cause = error.__cause__
    code = cause.response.get("Error", {}).get("Code") if isinstance(cause, ClientError) else ""
    return str(code)


def _refusal(what: str, answer: dict[str, Any], reading: bool) -> ImgconvError:
    """Return the error for an answer that says no."""
    error, told = answer.get("Error", {}), answer.get("ResponseMetadata", {})
    said = Refusal(
        error.get("Code", ""),
        error.get("Message", ""),
        int(told.get("HTTPStatusCode", 0)),
        told.get("HTTPHeaders", {}),
    )
    return said.error(what, reading=reading)


def _interruption(what: str, error: Any) -> ImgconvError:
    """Return the error for an exchange that did not come to its end."""
    inner = getattr(error, "kwargs", {}).get("error")
    if isinstance(inner, ImgconvError):  # our own body's reader stopped the request
        return inner
    if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreRefused(line(what, str(error)))
    return StoreUnavailable(line(what, str(error)))


def _mistake(what: str, error: Exception) -> ImgconvError:
    """Return the error for what the library itself would not do.

    A RuntimeError is how it says that credentials were fetched anew and are too old.
    """
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return AccessDenied(
            f"{what}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or name a profile with aws_profile"
        )
    if isinstance(error, (*_NO_FRESH_CREDENTIALS, RuntimeError)):
        return CredentialsExpired(line(what, str(error)))
    return StoreRefused(line(what, str(error)))
