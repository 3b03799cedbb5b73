"""Stores that speak S3: AWS, Cloudflare R2, Google Cloud, MinIO, Ceph, SeaweedFS, others.

Credentials come from where every AWS tool looks: environment, shared files, web identity,
instance role. Certificates are verified with the system's authorities or with the file
that AWS_CA_BUNDLE names.
"""

from dataclasses import dataclass
from typing import ClassVar

from imgconv.errors import OptionError, UsageError
from imgconv.objectstore import PartStore
from imgconv.options import (
    check_fields,
    choice_option,
    number_option,
    switch_option,
    text_option,
)
from imgconv.stores.profiles import PROFILES


@dataclass(frozen=True, slots=True, kw_only=True)
class S3:
    """How to reach a bucket that speaks S3."""

    scheme: ClassVar[str] = "s3"

    endpoint_url: str | None = text_option(
        None, "URL", "the service, when it is not AWS: https://storage.example.com"
    )
    region: str | None = text_option(None, "NAME", "the region requests are signed for")
    path_style: str = choice_option(
        "auto",
        ("auto", "on", "off"),
        "put the bucket into the path, not into the host name; auto: at endpoints but AWS's",
    )
    profile: str = choice_option(
        "auto",
        ("auto", *PROFILES),
        "the service's limits; auto goes by the endpoint's host name, plain uses no "
        "checksums but Content-MD5",
    )
    whole_checksum: bool = switch_option(
        True,
        "have the service verify the checksum of the whole object as well; off, with "
        "profile=seaweedfs only, copies zeros 15 times faster",
    )
    aws_profile: str | None = text_option(None, "NAME", "a profile of the AWS shared files")
    connect_timeout: int = number_option(20, "SECONDS", "wait so long for a connection")
    read_timeout: int = number_option(60, "SECONDS", "wait so long for the next byte")

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.whole_checksum and self.profile != "seaweedfs":
            raise OptionError(
                "whole_checksum=off needs profile=seaweedfs: other services take the "
                "checksums of parts only when one of the whole was announced"
            )
        for name in ("connect_timeout", "read_timeout"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be at least 1 second")

    def open(self, bucket: str) -> PartStore:
        """Return the store of a bucket; nothing is sent to it yet.

        Raises UsageError when boto3 is not installed, or cannot make sense of the options.
        """
        try:
            from imgconv.stores.s3_bucket import Bucket
            from imgconv.stores.s3_client import Connector
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "botocore":
                raise
            raise UsageError("s3:// needs boto3: pip install imgconv[s3]") from error
        connector = Connector(
            endpoint_url=self.endpoint_url,
            region=self.region,
            addressing={"auto": "auto", "on": "path", "off": "virtual"}[self.path_style],
            profile=self.profile,
            aws_profile=self.aws_profile,
            connect_timeout=self.connect_timeout,
            read_timeout=self.read_timeout,
        )
        return Bucket(bucket, connector, announce=self.whole_checksum)
