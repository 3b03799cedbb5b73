"""How an upload is carried out: everything a user may choose that no byte depends on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Literal

from imgconv.errors import OptionError
from imgconv.units import MiB
from imgconv.upload.retry import Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadOptions:
    """How to send an output to an object store; sizes in bytes, rates in bytes a second.

    `part_size`: of all parts but the first and the last; default: 16 MiB, or as much as
    it takes to stay below the store's number of parts. `concurrency`: requests at once;
    fewer while the store throttles. `memory`: for parts that are being filled or sent; a
    part that has more data than that gets what it needs. `rate_limit`: of what is sent.

    `resume`: go on with the unfinished upload of the same object, if there is one, and
    keep what was sent if this one fails too. `journal`: the file that remembers what was
    sent; default: one in the user's state folder, named after the object. Without
    `resume` there is no journal, and a failed upload is thrown away. `adopt`: where the
    journal knows of none, go on with the newest that the store lists, whoever began it; the
    object then carries what that one was begun with instead of `metadata`.

    `zero_copy`: have the store copy parts that are all zeros from one another ("on",
    "off"); "auto": where that costs no checksum. `content_md5`: send each part's MD5 too.
    `store_receipt`: put the receipt beside the object, as KEY.receipt.json. `metadata`: what
    the object carries besides its bytes. `backoff`: how a request is repeated while the
    store fails.
    """

    part_size: int | None = None
    concurrency: int = 4
    memory: int = 96 * MiB
    rate_limit: int | None = None
    resume: bool = False
    journal: str | PathLike[str] | None = None
    adopt: bool = True
    zero_copy: Literal["auto", "on", "off"] = "auto"
    content_md5: bool = False
    store_receipt: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    backoff: Backoff = field(default_factory=Backoff)

    def __post_init__(self) -> None:
        if self.part_size is not None and self.part_size < 1:
            raise OptionError(f"part_size={self.part_size}: must be positive")
        if not 1 <= self.concurrency <= 64:
            raise OptionError(f"concurrency={self.concurrency}: must be from 1 to 64")
        if self.memory < 8 * MiB:
            raise OptionError(f"memory={self.memory}: must be at least 8 MiB")
        if self.rate_limit is not None and self.rate_limit < 1:
            raise OptionError(f"rate_limit={self.rate_limit}: must be positive")
        if self.zero_copy not in ("auto", "on", "off"):
            raise OptionError(f"zero_copy={self.zero_copy}: must be auto, on or off")
        if self.journal is not None and not self.resume:
            raise OptionError("a journal is of use only with resume")
