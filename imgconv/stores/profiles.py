"""What the services that speak S3 bear and keep: facts, as data.

An endpoint nobody knows gets `generic`: a CRC-64/NVME goes along with every part, but only
a service whose answer repeats it is believed to have looked at it. It is told the condition
of an exclusive upload, too; as it may not know that, callers look for the object just before.
A service that refuses such checksums needs `plain`: Content-MD5, which every S3 server
verifies, at about 1.5 processor seconds per GiB.
"""

from dataclasses import replace

from imgconv.objectstore import Limits
from imgconv.units import GiB, MiB, TiB

_HOUR = 3600
_S3 = Limits(
    min_part=5 * MiB,
    max_part=5 * GiB,
    max_parts=10_000,
    max_object=5 * TiB,
    checksum="crc64-nvme",
)
_MD5 = replace(_S3, checksum=None, exclusive=False, etag_is_md5=True)
_ALL_PARTS = _S3.max_parts * _S3.max_part

# Where services often encrypt with keys of their own, `etag_is_md5` is not claimed: such
# a part's ETag is something else.
PROFILES = {
    "aws": replace(_S3, max_object=_ALL_PARTS),
    # R2 documents conditions for small objects, not for multipart uploads
    "r2": replace(
        _S3,
        uniform=True,
        exclusive=False,
        etag_is_md5=True,
        concurrency=2,
        lifetime=7 * 24 * _HOUR,
    ),
    "gcs": replace(_S3, checksum=None, exclusive=False, copies=False),
    "minio": replace(_S3, max_object=50 * TiB, lifetime=24 * _HOUR),
    # older Ceph ignores conditions without a word
    "ceph": _MD5,
    "seaweedfs": replace(_S3, max_object=_ALL_PARTS, etag_is_md5=True),
    "generic": replace(_S3, etag_is_md5=True),
    "plain": _MD5,
}
_HOSTS = {
    "amazonaws.com": "aws",
    "amazonaws.com.cn": "aws",
    "r2.cloudflarestorage.com": "r2",
    "storage.googleapis.com": "gcs",
}


def profile_of_host(host: str) -> str:
    """Return the name of the profile for an endpoint's host name."""
    for domain, name in _HOSTS.items():
        if f".{host}".endswith(f".{domain}"):
            return name
    return "generic"
