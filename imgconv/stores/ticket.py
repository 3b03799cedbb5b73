"""Uploads by ticket: without credentials, with URLs that somebody who has some has signed.

`ticket:///path/to/ticket.json` stands for the object that the ticket in that file is about;
see `imgconv.issue_ticket`, or `imgconv grant`.
"""

import os
from dataclasses import dataclass
from typing import ClassVar

from imgconv.errors import OptionError, UsageError
from imgconv.objectstore import PartStore
from imgconv.options import check_fields, number_option
from imgconv.stores.ticket_file import read_ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """How to use a ticket; all else is in it."""

    scheme: ClassVar[str] = "ticket"

    connect_timeout: int = number_option(
        20, "SECONDS", "time to connect, or to send a buffer, at most 1 MiB, of a part"
    )
    read_timeout: int = number_option(60, "SECONDS", "wait so long for the next byte")

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("connect_timeout", "read_timeout"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be at least 1 second")

    def open(self, bucket: str) -> PartStore:
        """Return the store of the one object that the ticket in the file `bucket` is about.

        Raises UsageError when that is no ticket, and without the urllib3 library.
        """
        from imgconv.stores.ticket_store import TicketStore
        from imgconv.stores.transport import Transport

        return TicketStore(
            bucket,
            Transport(
                "ticket://", connect=float(self.connect_timeout), read=float(self.read_timeout)
            ),
        )


def key_of_ticket(path: str) -> str:
    """Return the key of the object that the ticket in a file is about.

    Raises UsageError when the path is not absolute, or that is no ticket.
    """
    if not os.path.isabs(path):
        raise UsageError(f"ticket://{path}: needs an absolute path, ticket:///folder/name")
    return read_ticket(path).key
