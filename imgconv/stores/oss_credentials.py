"""Where credentials for OSS come from: the environment, or the role of an ECS instance.

A source is asked before every request. It hands out what it has, so that rotated keys are
used from the next request on.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http.client import HTTPException
from math import inf
from time import time
from typing import Protocol
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from imgconv.errors import AccessDenied, StoreRefused, StoreUnavailable
from imgconv.workers import Lock

_TOKEN_SECONDS = 300
_FETCH_SECONDS = 5  # of patience with the metadata service, which is on the same host
_EARLY_SECONDS = 300  # how long before they expire credentials are fetched anew
_PAUSE_SECONDS = 60  # between fetches while the service still tells the old ones
_ROLES = "/latest/meta-data/ram/security-credentials/"


@dataclass(frozen=True, slots=True)
class AccessKey:
    """Credentials; `expires` is in seconds since 1970."""

    id: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires: float = inf


class Source(Protocol):
    """Hands out credentials."""

    def get(self) -> AccessKey:
        """Return credentials that are good now.

        Raises AccessDenied when there are none, StoreUnavailable when they cannot be
        fetched right now.
        """
        ...

    def renew(self) -> None:
        """Forget what was handed out: the store does not take it."""
        ...


class EnvironmentKeys:
    """OSS_ACCESS_KEY_ID, OSS_ACCESS_KEY_SECRET and OSS_SESSION_TOKEN, as they are now."""

    def __init__(self, environment: Mapping[str, str] = os.environ):
        self._environment = environment

    def has_keys(self) -> bool:
        """Say whether both variables that are needed are set."""
        names = ("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET")
        return all(self._environment.get(name) for name in names)

    def get(self) -> AccessKey:
        """Return what the variables say; AccessDenied when one is missing."""
        if not self.has_keys():
            raise AccessDenied(
                "no credentials for OSS: set OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET"
            )
        environment = self._environment
        return AccessKey(
            environment["OSS_ACCESS_KEY_ID"],
            environment["OSS_ACCESS_KEY_SECRET"],
            environment.get("OSS_SESSION_TOKEN") or None,
        )

    def renew(self) -> None:
        """Nothing is kept that could be forgotten."""


class InstanceRole:
    """Credentials of the RAM role of the ECS instance, from its metadata service.

    The service is asked in its second version, with a token, and in the first where it
    knows no tokens.
    """

    def __init__(self, url: str, role: str | None):
        self._url, self._role = url.rstrip("/"), role
        self._opener = build_opener(ProxyHandler({}))  # a proxy would show us its own role
        self._lock = Lock()
        self._key: AccessKey | None = None
        self._fetch_at = 0.0

    def get(self) -> AccessKey:
        """Return the role's credentials, fetched anew when they are about to expire."""
        with self._lock:
            now = time()
            if self._key is None or now >= self._fetch_at:
                self._key = self._fetch_or_keep(self._key, now)
                soon = min(now + _PAUSE_SECONDS, self._key.expires)
                self._fetch_at = max(self._key.expires - _EARLY_SECONDS, soon)
            return self._key

    def renew(self) -> None:
        """Forget the credentials, so that the next request fetches them."""
        with self._lock:
            self._key = None

    def _fetch_or_keep(self, old: AccessKey | None, now: float) -> AccessKey:
        try:
            return self._fetch()
        except StoreUnavailable:
            if old is None or now >= old.expires:
                raise
            return old

    def _fetch(self) -> AccessKey:
        headers = self._token_header()
        role = self._role or self._ask(_ROLES, headers).split("\n")[0].strip()
        text = self._ask(_ROLES + role, headers)
        try:
            told = json.loads(text)
            expires = datetime.fromisoformat(told["Expiration"]).timestamp()
            secret, token = str(told["AccessKeySecret"]), str(told["SecurityToken"])
            return AccessKey(str(told["AccessKeyId"]), secret, token, expires)
        except (ValueError, KeyError, TypeError):
            raise StoreUnavailable(f"{self._url}: tells no credentials of {role}") from None

    def _token_header(self) -> dict[str, str]:
        headers = {"X-aliyun-ecs-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
        try:
            token = self._ask("/latest/api/token", headers, "PUT")
        except StoreRefused:
            return {}
        return {"X-aliyun-ecs-metadata-token": token.strip()}

    def _ask(self, path: str, headers: dict[str, str], method: str = "GET") -> str:
        request = Request(self._url + path, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=_FETCH_SECONDS) as reply:
                return str(reply.read().decode())
        except HTTPError as error:
            with error:
                text = f"{self._url}: tells no RAM role credentials: HTTP {error.code}"
            kind = StoreUnavailable if error.code >= 500 or error.code == 429 else AccessDenied
            raise kind(text) from error
        except (OSError, HTTPException, UnicodeDecodeError) as error:
            raise StoreUnavailable(f"{self._url}: cannot be asked: {error}") from error


class FirstFound:
    """The environment when it has keys, else the role of the instance, if this is one."""

    def __init__(self, environment: EnvironmentKeys, role: InstanceRole):
        self._environment, self._role = environment, role
        self._is_instance = False

    def get(self) -> AccessKey:
        """Return credentials; AccessDenied when neither has any."""
        if self._environment.has_keys():
            return self._environment.get()
        try:
            key = self._role.get()
        except (StoreRefused, StoreUnavailable) as error:
            if self._is_instance:
                raise
            raise AccessDenied(
                "no credentials for OSS: OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET are not "
                f"set, and there is no RAM role ({error})"
            ) from error
        self._is_instance = True
        return key

    def renew(self) -> None:
        """Forget what the role had."""
        self._role.renew()
