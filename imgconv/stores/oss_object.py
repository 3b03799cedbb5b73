"""An object of Alibaba Cloud OSS, read by range."""

import sys
from collections.abc import Iterator

import alibabacloud_oss_v2 as oss

from imgconv.errors import StoreUnavailable
from imgconv.objectstore import ObjectInfo
from imgconv.stores.oss_errors import store_errors, transport_error
from imgconv.units import KiB

_READ_CHUNK = 256 * KiB


class OssReader:
    """One object; see `objectstore.ObjectReader`."""

    def __init__(self, client: oss.Client, bucket: str, key: str, info: ObjectInfo):
        self.name, self.info = f"oss://{bucket}/{key}", info
        self._client, self._bucket, self._key = client, bucket, key

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole buffer from `offset` on."""
        if not buffer:
            return
        what, handled = f"{self.name}: cannot read at offset {offset}", sys.exception()
        with store_errors(what):
            reply = self._client.get_object(
                oss.GetObjectRequest(
                    bucket=self._bucket,
                    key=self._key,
                    if_match=f'"{self.info.etag}"',
                    range_header=f"bytes={offset}-{offset + len(buffer) - 1}",
                    range_behavior="standard",  # else a range past the end is the whole object
                )
            )
        with reply.body:
            if reply.content_length != len(buffer):
                raise StoreUnavailable(
                    f"{what}: {len(buffer)} bytes were asked for, {reply.content_length} came"
                )
            try:
                _fill(buffer, reply.body.iter_bytes(block_size=_READ_CHUNK))
            except OSError as error:  # what the SDK's HTTP library raises
                raise transport_error(error, what, handled) from error

    def close(self) -> None:
        """Do nothing: the connections are the store's."""


def _fill(buffer: memoryview, chunks: Iterator[bytes]) -> None:
    at = 0
    for chunk in chunks:
        buffer[at : at + len(chunk)] = chunk
        at += len(chunk)
    if at < len(buffer):
        raise ConnectionError(f"the answer ended after {at} bytes")
