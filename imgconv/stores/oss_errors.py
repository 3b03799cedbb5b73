"""What went wrong at OSS, in our words: SDK exceptions become StoreErrors of one line."""

import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from time import time
from xml.etree.ElementTree import ParseError

from alibabacloud_oss_v2 import exceptions as sdk

from imgconv.errors import (
    AccessDenied,
    BucketElsewhere,
    BucketMissing,
    ContentDamaged,
    CredentialsExpired,
    ImgconvError,
    ObjectChanged,
    ObjectMissing,
    OutputExists,
    StoreCannot,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
    UploadGone,
)
from imgconv.stores.causes import causes

_BY_CODE: Mapping[str, type[ImgconvError]] = {
    "NoSuchBucket": BucketMissing,
    "PermanentRedirect": BucketElsewhere,
    "AccessDenied": AccessDenied,
    "InvalidAccessKeyId": AccessDenied,
    "SignatureDoesNotMatch": AccessDenied,
    "UserDisable": AccessDenied,
    "NoSuchKey": ObjectMissing,
    "NoSuchVersion": ObjectMissing,
    "SymlinkTargetNotExist": ObjectMissing,
    "NoSuchUpload": UploadGone,
    "FileAlreadyExists": OutputExists,
    "PreconditionFailed": ObjectChanged,
    "InvalidDigest": ContentDamaged,
    "BadDigest": ContentDamaged,
    "SecurityTokenExpired": CredentialsExpired,
    "InvalidSecurityToken": CredentialsExpired,
    "ExpiredToken": CredentialsExpired,
    "InvalidToken": CredentialsExpired,
    "RequestTimeout": StoreUnavailable,
    "IncompleteBody": StoreUnavailable,
    "OperationAborted": StoreUnavailable,
    "Conflict": StoreUnavailable,
    "NotImplemented": StoreCannot,
    "MethodNotAllowed": StoreCannot,
}
_BY_STATUS: Mapping[int, type[ImgconvError]] = {
    405: StoreCannot,
    408: StoreUnavailable,
    412: ObjectChanged,
    501: StoreCannot,
}
_NOT_OSS = "BadErrorResponse"  # the SDK's code for an answer without an error document
_TOKEN_EXPIRED = "0002-00000007"  # EC; its code is not the same everywhere
_OTHER_ENDPOINT = "0003-00001403"  # EC; to its code, the bucket denies us access
_MILLISECONDS = 1000


@contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Turn what the SDK raises in the body into StoreErrors; `what` begins the message."""
    handled = sys.exception()
    try:
        yield
    except sdk.BaseError as error:
        cause = _cause(error)
        if not isinstance(cause, sdk.BaseError | ParseError | UnicodeError | OSError):
            # ours: a cancelled body, missing credentials, a bug
            raise cause from cause.__cause__
        raise _store_error(cause, what, handled) from error
    except (ParseError, ValueError) as error:
        raise _store_error(error, what, handled) from error


def transport_error(
    error: BaseException, what: str, handled: BaseException | None
) -> ImgconvError:
    """Return the StoreError of a connection that failed while something was `handled`."""
    chain = list(causes(error, handled))
    text = f"{what}: {_line(_reason(chain[-1]))}"
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in chain):
        return StoreRefused(text)
    if isinstance(error, ValueError):  # requests: a URL or a header that cannot be
        return StoreRefused(text)
    return StoreUnavailable(text)


def _cause(error: sdk.BaseError) -> BaseException:
    """Return what an OperationError is about."""
    cause: BaseException = error
    if isinstance(cause, sdk.OperationError):
        cause = cause.unwrap()
    if isinstance(cause, sdk.CredentialsFetchError):
        cause = cause.kwargs["error"]
    return cause


def _reason(error: BaseException) -> str:
    told = error.strerror if isinstance(error, OSError) else None
    return told or str(error) or type(error).__name__


def _store_error(
    error: BaseException, what: str, handled: BaseException | None
) -> ImgconvError:
    if isinstance(error, sdk.ServiceError):
        return _service_error(error, what)
    if isinstance(error, sdk.RequestError | sdk.ResponseError):
        return transport_error(error.unwrap(), what, handled)
    if isinstance(error, OSError):
        return transport_error(error, what, handled)
    text = f"{what}: {_line(str(error))}"
    if isinstance(error, sdk.DeserializationError | ParseError | ValueError):
        unsayable = isinstance(error, UnicodeEncodeError)  # a key that is no text
        return StoreRefused(text) if unsayable else StoreUnavailable(text)
    return StoreRefused(text)


def _service_error(error: sdk.ServiceError, what: str) -> ImgconvError:
    text, code = f"{what}: {_described(error)}", error.code or _NOT_OSS
    kind = _BY_CODE.get(code)
    if error.ec == _TOKEN_EXPIRED:
        kind = CredentialsExpired
    elif error.ec == _OTHER_ENDPOINT:
        kind = BucketElsewhere
    elif kind is None and _is_throttled(error.status_code, code, error.headers):
        return StoreThrottled(text, _retry_after(error.headers))
    elif kind is None and code == _NOT_OSS and error.status_code == 404:
        # of an upload that is gone, OSS says so: this may be half of that
        kind = StoreUnavailable if "uploadId=" in error.request_target else ObjectMissing
    if kind is None:
        otherwise = StoreUnavailable if error.status_code >= 500 else StoreRefused
        kind = _BY_STATUS.get(error.status_code, otherwise)
    return kind(text)


def _is_throttled(status: int, code: str, headers: Mapping[str, str]) -> bool:
    """TotalQpsLimitExceeded, UploadTrafficRateLimitExceeded, PartitionQpsLimitted, ..."""
    asks = "Limit" in code or "SlowDown" in code or "Retry-After" in headers
    return status == 429 or (status == 503 and asks)


def _retry_after(headers: Mapping[str, str]) -> float:
    """Return how many seconds the store wants us to wait, 0 when it does not say."""
    told, delay = headers.get("Retry-After", ""), headers.get("x-oss-qos-delay-time", "")
    seconds = [0.0]
    if delay.isascii() and delay.isdigit():
        seconds.append(int(delay) / _MILLISECONDS)
    if told.isascii() and told.isdigit():
        seconds.append(float(told))
    elif told:
        with suppress(ValueError):
            seconds.append(parsedate_to_datetime(told).timestamp() - time())
    return max(seconds)


def _described(error: sdk.ServiceError) -> str:
    """Return code, message, EC and request id in one line."""
    if error.code in (None, "", _NOT_OSS):
        text = f"HTTP {error.status_code}"
    elif error.code == "RequestTimeTooSkewed":
        told = error.error_fileds or {}
        text = (
            f"{error.code}: the clock of this machine is wrong: it says "
            f"{told.get('RequestTime', 'one time')}, the store "
            f"{told.get('ServerTime') or error.timestamp}"
        )
    else:
        text = f"{error.code}: {error.message}"
    marks = ("EC", error.ec), ("request", error.request_id)
    noted = ", ".join(f"{name} {value}" for name, value in marks if value)
    return _line(f"{text} ({noted})" if noted else text)


def _line(text: str) -> str:
    return " ".join(text.split())
