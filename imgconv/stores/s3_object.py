"""An object in a bucket that speaks S3, read by range."""

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Any

from imgconv.errors import StoreCannot, StoreUnavailable
from imgconv.objectstore import ObjectInfo
from imgconv.stores.s3_client import Clients
from imgconv.stores.s3_wire import quoted
from imgconv.units import MiB


class S3Object:
    """An ObjectReader over S3; `at` is what the library calls bucket and key.

    `calling` lends the clients for one call, under the name it is to have in messages.
    """

    def __init__(
        self,
        name: str,
        at: dict[str, Any],
        info: ObjectInfo,
        calling: Callable[..., AbstractContextManager[Clients]],
    ):
        self._name, self._at, self._info, self._calling = name, at, info, calling

    @property
    def name(self) -> str:
        """The URL of the object."""
        return self._name

    @property
    def info(self) -> ObjectInfo:
        """The object as it was when it was opened."""
        return self._info

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole buffer from `offset` on, in bytes."""
        if not len(buffer):
            return
        wanted = f"bytes={offset}-{offset + len(buffer) - 1}"
        with self._calling(f"{self._at['Key']}: get {wanted}", reading=True) as clients:
            answer = clients.quick.get_object(
                **self._at, Range=wanted, IfMatch=quoted(self._info.etag)
            )
            with closing(answer["Body"]) as body:
                if not answer.get("ContentRange", "").startswith(f"bytes {offset}-"):
                    raise StoreCannot(f"{self._name}: the service does not read by range")
                self._fill(buffer, body, offset)

    def close(self) -> None:
        """Do nothing: the connections are the bucket's."""

    def _fill(self, buffer: memoryview, body: Any, offset: int) -> None:
        # the library reads into bytes of its own: small ones stay in the processor's cache
        at = 0
        while at < len(buffer):
            got = body.readinto(buffer[at : at + MiB])
            if not got:
                raise StoreUnavailable(
                    f"{self._name}: the answer for offset {offset} ended after {at} of "
                    f"{len(buffer)} bytes"
                )
            at += got
