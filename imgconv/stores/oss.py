"""Alibaba Cloud OSS: the options of `oss://bucket/key`.

The store itself is in `oss_store.py`, which imports the SDK and is loaded when a bucket is
opened.
"""

import os
import re
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlsplit

from imgconv.errors import OptionError, UsageError
from imgconv.objectstore import PartStore
from imgconv.options import check_fields, choice_option, number_option, text_option

_ENDPOINT = re.compile(r"(https?://)?[A-Za-z0-9._-]+(:[0-9]{1,5})?/?")
_REGION_IN_HOST = re.compile(r"oss-([a-z0-9-]+?)(-internal)?\.aliyuncs\.com")


@dataclass(frozen=True, slots=True, kw_only=True)
class Oss:
    """OSS options. Secrets are none of them: those come from the environment or a role."""

    scheme: ClassVar[str] = "oss"

    endpoint_url: str | None = text_option(
        None, "URL", "the service; else OSS_ENDPOINT, or the public one of the region"
    )
    region: str | None = text_option(
        None, "NAME", "such as cn-hangzhou; else OSS_REGION, or what the endpoint's name says"
    )
    path_style: str = choice_option(
        "auto",
        ("auto", "on", "off"),
        "bucket in the path, not the host name; auto: on for addresses and bare names",
    )
    credentials: str = choice_option(
        "auto",
        ("auto", "environment", "ram-role", "anonymous"),
        "environment: OSS_ACCESS_KEY_ID, OSS_ACCESS_KEY_SECRET and OSS_SESSION_TOKEN; "
        "ram-role: that of the ECS instance; auto: what there is, in this order",
    )
    role: str | None = text_option(
        None, "NAME", "RAM role of the instance; else the one attached to it"
    )
    metadata_url: str = text_option(
        "http://100.100.100.200", "URL", "where the instance tells credentials of its role"
    )
    connect_timeout: int = number_option(
        30, "SECONDS", "time to connect, or to send a buffer, at most 1 MiB, of a part"
    )
    read_timeout: int = number_option(60, "SECONDS", "time to wait for an answer")
    complete_timeout: int = number_option(
        600, "SECONDS", "time to wait for the end of an upload, or of a copy in the store"
    )

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("connect_timeout", "read_timeout", "complete_timeout"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name}={getattr(self, name)}: must be at least 1 second")
        for name in ("endpoint_url", "metadata_url"):
            url = getattr(self, name)
            if url is not None and _ENDPOINT.fullmatch(url) is None:
                raise OptionError(f"{name}={url}: must be a URL with a host and no path")

    def open(self, bucket: str) -> PartStore:
        """Return the store of a bucket; nothing is sent yet.

        Raises UsageError without the SDK, and when the region is not told.
        """
        try:
            from imgconv.stores.oss_store import OssStore
        except ModuleNotFoundError as error:
            if error.name != "alibabacloud_oss_v2":
                raise
            raise UsageError("oss:// needs the OSS SDK: pip install imgconv[oss]") from error
        return OssStore(bucket, self)

    def endpoint(self) -> str | None:
        """Return the URL of the service with its scheme, None for the region's public one."""
        url = self.endpoint_url or os.environ.get("OSS_ENDPOINT") or None
        return url if url is None or "://" in url else f"https://{url}"

    def signing_region(self) -> str:
        """Return the region that requests are signed for; UsageError when nobody tells it."""
        if region := self.region or os.environ.get("OSS_REGION"):
            return region
        if match := _REGION_IN_HOST.fullmatch(self._host()):
            return match[1]
        raise UsageError("oss: which region? Give region=..., such as region=cn-hangzhou")

    def bucket_in_path(self) -> bool:
        """Say whether the bucket belongs in the path of requests, not in the host name."""
        if self.path_style == "auto":
            host = self._host()
            return bool(host) and ("." not in host or re.fullmatch("[0-9.]+", host) is not None)
        return self.path_style == "on"

    def _host(self) -> str:
        return urlsplit(self.endpoint() or "").hostname or ""
