"""A loopback stand-in of the metadata service of an ECS instance, with a RAM role."""

import json
import time

from support.loopback import Connection, LoopbackServer, Reply, Request
from support.oss_auth import Key

ROLES = "/latest/meta-data/ram/security-credentials/"


class EcsMetadata(LoopbackServer):
    """Hands out `current`, an (access key id, Key) pair, to whoever has a token.

    With `tokens` off it is the first version, which knows none. `status` is answered to
    everything once it is not 200. `log` has methods and paths.
    """

    def __init__(self, role: str, current: tuple[str, Key]):
        super().__init__()
        self.role, self.current = role, current
        self.tokens, self.status = True, 200
        self.log: list[str] = []

    def serve(self, connection: Connection, request: Request) -> bool:
        self.log.append(f"{request.method} {request.path}")
        status, text = self._answer(request)
        connection.send(Reply(status, body=text.encode()))
        return True

    def _answer(self, request: Request) -> tuple[int, str]:
        headers = request.headers
        if self.status != 200:
            return self.status, "out of order"
        if request.path == "/latest/api/token":
            lives = request.method == "PUT" and self.tokens
            told = "x-aliyun-ecs-metadata-token-ttl-seconds" in headers
            return (200, "a-token") if lives and told else (404, "")
        if self.tokens and headers.get("x-aliyun-ecs-metadata-token") != "a-token":
            return 403, "forbidden"
        if request.path == ROLES:
            return 200, self.role
        return (200, self._credentials()) if request.path == ROLES + self.role else (404, "")

    def _credentials(self) -> str:
        name, key = self.current
        told = {"AccessKeyId": name, "AccessKeySecret": key.secret, "Code": "Success"}
        expires = time.gmtime(key.expires or time.time() + 3600)
        told["Expiration"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", expires)
        return json.dumps(told | {"SecurityToken": key.token})
