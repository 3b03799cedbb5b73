"""A loopback server that speaks the multipart API of Alibaba OSS, with faults on order.

    with OssServer(folder) as server:
        server.faults.add("UploadPart", Fault(status=503, code="SlowDown"))
        ... server.endpoint_url, server.log, server.objects

Operations have the names of the OSS API. `python -m support.oss_server FOLDER PORT` (in
tests/) runs one as a process, to be killed and started again on the same folder; it keeps
the keys of the environment (OSS_ACCESS_KEY_ID, ...).
"""

import os
import ssl
import sys
import threading
import time
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from support.faults import Fault, Faults
from support.loopback import Connection, LoopbackServer, Reply, Request
from support.oss_auth import Key, Refusal, address, check
from support.oss_operations import REGION, Call
from support.oss_state import PendingUpload, State, StoredObject

KEYS = {"imgconv": Key("imgconv-secret")}
_OF_BUCKET = {
    "uploads": "ListMultipartUploads",
    "location": "GetBucketLocation",
    "bucketInfo": "GetBucketInfo",
}
_PUT = ("InitiateMultipartUpload", "UploadPart", "UploadPartCopy", "CompleteMultipartUpload")
ACTIONS = {**dict.fromkeys(_PUT, "oss:PutObject"), "HeadObject": "oss:GetObject"}


def action_of(operation: str) -> str:
    """What a RAM policy calls the right to an operation."""
    return ACTIONS.get(operation, f"oss:{operation}")


@dataclass(frozen=True)
class Entry:
    """A request that was dealt with; `outcome` is "200", an error code, or what befell it."""

    operation: str
    key: str
    number: int
    length: int
    outcome: str
    request: Request


def operation_of(request: Request, key: str) -> str:
    params, method = request.params, request.method
    if not key:
        asked = [name for param, name in _OF_BUCKET.items() if param in params]
        return asked[0] if asked else "ListObjects"
    copied = "x-oss-copy-source" in request.headers
    part = ("UploadPartCopy" if copied else "UploadPart") if "partNumber" in params else ""
    return {
        "POST": "InitiateMultipartUpload" if "uploads" in params else "CompleteMultipartUpload",
        "PUT": part or "PutObject",
        "DELETE": "AbortMultipartUpload" if "uploadId" in params else "DeleteObject",
        "GET": "ListParts" if "uploadId" in params else "GetObject",
        "HEAD": "HeadObject",
    }[method]


class OssServer(LoopbackServer):
    """Keys may be changed at any time; without any, requests need no signature.

    `page` is how many rows a list has at most; `discard` keeps no bodies (they read as
    zeros, and ETags are no MD5). `clock_offset` is in seconds. `policy` are the actions
    that are permitted, None for all.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keys: dict[str, Key] | None = None,
        region: str = REGION,
        page: int = 1000,
        discard: bool = False,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ):
        super().__init__(port, tls)
        self.state = State(folder, discard=discard, page=page)
        self.keys = dict(KEYS) if keys is None else keys
        self.region, self.clock_offset = region, 0.0
        self.policy: frozenset[str] | None = None
        self.faults = Faults()
        self.log: list[Entry] = []

    @property
    def objects(self) -> dict[tuple[str, str], StoredObject]:
        return self.state.objects

    @property
    def uploads(self) -> dict[str, PendingUpload]:
        return self.state.uploads

    def serve(self, connection: Connection, request: Request) -> bool:
        bucket, key = address(request)
        operation = operation_of(request, key)
        fault, call = Fault(), Call(self.state, connection, request, bucket, key)
        try:
            if self.keys:
                check(request, self.keys, self.region, time.time() + self.clock_offset)
            if self.policy is not None and action_of(operation) not in self.policy:
                raise Refusal(403, "AccessDenied", "No right to do so.", "0003-00000001")
            fault = self.faults.take(operation, request)
            call.fault = fault
            time.sleep(fault.stall)
            if fault.reset_after is not None:
                connection.skip(fault.reset_after)
                return self._end(connection, call, operation, "reset")
            reply, outcome = call.carry_out(operation), "200"
        except Refusal as refusal:
            reply, outcome = call.refusal(refusal), refusal.code
        if fault.drop_reply:
            return self._end(connection, call, operation, "dropped")
        self._note(call, operation, outcome)
        return _send(connection, call, reply)

    def _end(self, connection: Connection, call: "Call", operation: str, how: str) -> bool:
        self._note(call, operation, how)
        connection.reset()
        return False

    def _note(self, call: "Call", operation: str, outcome: str) -> None:
        number = int(call.request.params.get("partNumber", 0))
        row = (operation, call.key, number, call.request.length, outcome, call.request)
        self.log.append(Entry(*row))


def _send(connection: Connection, call: "Call", reply: Reply) -> bool:
    fault = call.fault
    if not fault.unread:
        connection.skip(connection.unread)
    if fault.blank:
        reply = Reply(reply.status)
    if fault.body is None:
        common = ("Server", "AliyunOSS"), ("Date", formatdate(usegmt=True))
        common += (("x-oss-request-id", call.id),)
        reply.headers = (*common, *reply.headers)
    if fault.wrong_crc:
        reply.headers = tuple(
            (n, str(int(v) ^ 1) if n == "x-oss-hash-crc64ecma" else v) for n, v in reply.headers
        )
    ends = fault.unread
    if fault.cut_reply is not None:
        whole = reply.body or b"".join(reply.content or ())
        reply.length, reply.content = len(whole), None
        reply.body = whole[: fault.cut_reply]
        ends |= fault.cut_reply < len(whole)
    connection.send(reply)
    return not ends


def main(folder: str, port: str) -> None:
    environment = os.environ
    name = environment.get("OSS_ACCESS_KEY_ID", "imgconv")
    secret = environment.get("OSS_ACCESS_KEY_SECRET", KEYS["imgconv"].secret)
    key = Key(secret, environment.get("OSS_SESSION_TOKEN"))
    with OssServer(Path(folder), keys={name: key}, port=int(port)) as server:
        print(server.endpoint_url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
