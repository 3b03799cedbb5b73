"""What a service that speaks S3 says when it refuses, and what that means: one StoreError.

Needs no library, and so serves whoever does without.
"""

from collections.abc import Mapping
from dataclasses import dataclass

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
from imgconv.stores.transport import retry_after

_LONGEST = 400  # characters of a service's prose in a message

# Codes come first: a service is more precise in them than in the status.
_BY_CODE: dict[str, type[ImgconvError]] = {
    "InternalError": StoreUnavailable,
    "ServiceUnavailable": StoreUnavailable,
    "RequestTimeout": StoreUnavailable,
    "IncompleteBody": StoreUnavailable,
    "OperationAborted": StoreUnavailable,
    "SlowDown": StoreThrottled,
    "SlowDownRead": StoreThrottled,
    "SlowDownWrite": StoreThrottled,
    "Throttling": StoreThrottled,
    "ThrottlingException": StoreThrottled,
    "TooManyRequests": StoreThrottled,
    "RequestLimitExceeded": StoreThrottled,
    "BandwidthLimitExceeded": StoreThrottled,
    "BadDigest": ContentDamaged,
    "InvalidDigest": ContentDamaged,
    "XAmzContentChecksumMismatch": ContentDamaged,
    "XAmzContentSHA256Mismatch": ContentDamaged,
    "ExpiredToken": CredentialsExpired,
    "ExpiredTokenException": CredentialsExpired,
    "InvalidToken": CredentialsExpired,
    "TokenRefreshRequired": CredentialsExpired,
    "RequestTimeTooSkewed": StoreRefused,
    "NoSuchUpload": UploadGone,
    "NoSuchKey": ObjectMissing,
    "NoSuchBucket": BucketMissing,
    "PermanentRedirect": BucketElsewhere,
    "AuthorizationHeaderMalformed": BucketElsewhere,
    "IllegalLocationConstraintException": BucketElsewhere,
    "AccessDenied": AccessDenied,
    "AllAccessDisabled": AccessDenied,
    "InvalidAccessKeyId": AccessDenied,
    "SignatureDoesNotMatch": AccessDenied,
    "PreconditionFailed": OutputExists,
    "ConditionalRequestConflict": OutputExists,
    "NotImplemented": StoreCannot,
    "MethodNotAllowed": StoreCannot,
}
_BY_STATUS: dict[int, type[ImgconvError]] = {
    404: ObjectMissing,
    405: StoreCannot,
    408: StoreUnavailable,
    412: OutputExists,
    429: StoreThrottled,
    501: StoreCannot,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that says no; `code` is "" where the service gives none, as to a HEAD.

    The names of headers are in lower case, or have none.
    """

    code: str
    message: str
    status: int
    headers: Mapping[str, str]

    def error(self, what: str, *, reading: bool = False) -> ImgconvError:
        """Return what it means, in one line that begins with `what`.

        A condition that does not hold means ObjectChanged when `reading`, else OutputExists.
        """
        kind, text = self._kind(), line(what, self.code, self.message)
        if kind is StoreThrottled:
            return StoreThrottled(text, retry_after(self.headers))
        if kind is OutputExists and reading:
            return ObjectChanged(text)
        if self.code == "RequestTimeTooSkewed":
            return StoreRefused(f"{text}; the server's clock says {self.headers.get('date')}")
        return kind(text)

    def _kind(self) -> type[ImgconvError]:
        kind = _BY_CODE.get(self.code)
        if kind is not None:
            # "come back later" with a time is about load, whatever the code
            busy = kind is StoreUnavailable and "retry-after" in self.headers
            return StoreThrottled if busy else kind
        if self.status in _BY_STATUS:
            return _BY_STATUS[self.status]
        if self.status == 503 and "retry-after" in self.headers:
            return StoreThrottled
        return StoreUnavailable if self.status >= 500 else StoreRefused


def line(*words: str) -> str:
    """Join what is not empty to one line of bearable length."""
    text = ": ".join(" ".join(word.split()) for word in words if word)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
