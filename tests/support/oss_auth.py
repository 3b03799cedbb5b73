"""Signatures of OSS, version 4, checked as the service checks them.

Written from the description of OSS4-HMAC-SHA256 and not from the SDK, so that a mistake
of one is not a mistake of both.
"""

import calendar
import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from urllib.parse import quote, unquote

from support.loopback import Request

MAX_SKEW = 900
_HEADER = re.compile(
    r"OSS4-HMAC-SHA256 Credential=([^,]+)"
    r"(?:, ?AdditionalHeaders=([^,]*))?, ?Signature=([0-9a-f]{64})"
)


class Refusal(Exception):
    """An error reply of OSS: HTTP status, code, message, EC and further XML elements."""

    def __init__(self, status: int, code: str, message: str = "", ec: str = "", **more: object):
        super().__init__(code)
        self.status, self.code, self.message = status, code, message or code
        self.ec, self.more = ec or "0000-00000000", more


@dataclass(frozen=True)
class Key:
    """The secret of an access key; with a token it is one of STS, which may expire."""

    secret: str
    token: str | None = None
    expires: float | None = None


@dataclass(frozen=True)
class _Claim:
    """What a request says of its own signature."""

    credential: str
    additional: tuple[str, ...]
    signature: str
    date: str
    token: str | None
    query: tuple[tuple[str, str], ...]
    expires: float | None


def check(request: Request, keys: dict[str, Key], region: str, now: float) -> None:
    """Raise Refusal unless the request is signed with one of the keys."""
    claim = _claim(request)
    name, _, scope = claim.credential.partition("/")
    day, scope_region, product, end = (*scope.split("/"), "", "", "", "")[:4]
    if name not in keys:
        raise Refusal(403, "InvalidAccessKeyId", "No such access key.", "0002-00000902")
    key = keys[name]
    _check_token(claim, key, now)
    _check_time(claim, now)
    if (day, scope_region, product, end) != (
        claim.date[:8],
        region,
        "oss",
        "aliyun_v4_request",
    ):
        raise Refusal(400, "InvalidArgument", "Invalid signing scope.", "0002-00000226")
    if not hmac.compare_digest(_signature(request, claim, key.secret, scope), claim.signature):
        raise Refusal(403, "SignatureDoesNotMatch", "Wrong signature.", "0002-00000201")


def _claim(request: Request) -> _Claim:
    headers, params = request.headers, request.params
    if match := _HEADER.fullmatch(headers.get("authorization", "")):
        credential, additional, signature = match.groups()
        date, token = headers.get("x-oss-date", ""), headers.get("x-oss-security-token")
        query, expires = request.query, None
    elif "x-oss-signature" in params:
        credential, date = params["x-oss-credential"], params["x-oss-date"]
        additional = params.get("x-oss-additional-headers")
        signature, token = params["x-oss-signature"], params.get("x-oss-security-token")
        query = [pair for pair in request.query if pair[0] != "x-oss-signature"]
        expires = _seconds(date) + int(params["x-oss-expires"])
    else:
        raise Refusal(403, "AccessDenied", "Anonymous access is forbidden.", "0003-00000001")
    names = tuple(sorted(filter(None, (additional or "").split(";"))))
    return _Claim(credential, names, signature, date, token, tuple(query), expires)


def _check_token(claim: _Claim, key: Key, now: float) -> None:
    if key.token != claim.token:
        raise Refusal(403, "InvalidSecurityToken", "Invalid security token.", "0002-00000008")
    if key.expires is not None and now > key.expires:
        raise Refusal(403, "SecurityTokenExpired", "The token expired.", "0002-00000007")


def _check_time(claim: _Claim, now: float) -> None:
    if claim.expires is not None:
        if now > claim.expires:
            raise Refusal(403, "AccessDenied", "Request has expired.", "0002-00000069")
    elif abs(now - _seconds(claim.date)) > MAX_SKEW:
        raise Refusal(
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            "0002-00000504",
            RequestTime=time.strftime("%Y-%m-%dT%H:%M:%S.000Z", _parsed(claim.date)),
            ServerTime=time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(now)),
        )


def _parsed(date: str) -> time.struct_time:
    try:
        return time.strptime(date, "%Y%m%dT%H%M%SZ")
    except ValueError:
        raise Refusal(403, "AccessDenied", "Invalid date.", "0002-00000223") from None


def _seconds(date: str) -> float:
    return calendar.timegm(_parsed(date))


def _signature(request: Request, claim: _Claim, secret: str, scope: str) -> str:
    signed = [
        f"{name}:{value}\n"
        for name, value in sorted(request.headers.items())
        if name.startswith("x-oss-")
        or name in ("content-type", "content-md5")
        or name in claim.additional
    ]
    canonical = "\n".join(
        (
            request.method,
            quote(canonical_path(request), safe="/"),
            "&".join(f"{n}={v}" if v else n for n, v in sorted(claim.query)),
            "".join(signed),
            ";".join(claim.additional),
            request.headers.get("x-oss-content-sha256", "UNSIGNED-PAYLOAD"),
        )
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(("OSS4-HMAC-SHA256", claim.date, scope, digest))
    key = f"aliyun_v4{secret}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def canonical_path(request: Request) -> str:
    """Return "/bucket/key" of either style of address, decoded."""
    bucket, key = address(request)
    return f"/{bucket}/{key}" if bucket else "/"


def address(request: Request) -> tuple[str, str]:
    """Return bucket and key: the bucket is in the path, or the host's first label."""
    path = unquote(request.path).removeprefix("/")
    host = request.headers.get("host", "").partition(":")[0]
    if host == "localhost" or re.fullmatch("[0-9.]+", host):
        bucket, _, key = path.partition("/")
        return bucket, key
    return host.partition(".")[0], path
