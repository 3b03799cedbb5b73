"""SeaweedFS, a real S3 server, on the loopback interface."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = "exports"
WEED = Path(sys.executable).with_name("weed")
GRPC = 10_000  # from a service's port to the one it talks to the others on
SERVICES = ("master", "volume", "filer", "s3", "admin")
PATIENCE = 60  # seconds; it takes two when nobody else is at work


class Seaweed:
    """A server whose objects live in `folder`; restarts keep its endpoint and content."""

    access_key, secret_key, bucket = "imgconv-access", "imgconv-secret", BUCKET

    def __init__(self, folder: Path):
        self.folder = folder
        self._ports = free_ports(len(SERVICES))
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("data", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._ports[SERVICES.index('s3')]}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Start it and wait until it has its bucket."""
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                env={**os.environ, **self.environment, "TMPDIR": str(self.folder / "tmp")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._wait()

    def kill(self) -> None:
        """End it as a power cut would; harmless when it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        own = {str(port + more) for port in self._ports for more in (0, GRPC)}
        for path in Path("/tmp").glob("seaweedfs-*.sock"):  # it offers no other place for all
            if path.stem.rpartition("-")[2] in own:
                path.unlink(missing_ok=True)

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def _command(self) -> list[str]:
        ports = zip(SERVICES, self._ports, strict=True)
        return [
            str(WEED),
            f"-logdir={self.folder / 'tmp'}",
            "mini",
            f"-dir={self.folder / 'data'}",
            f"-bucket={BUCKET}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            *[f"-{service}.port={port}" for service, port in ports],
            f"-filer.localSocket={self.folder / 'tmp' / 'filer.sock'}",
            f"-s3.localSocket={self.folder / 'tmp' / 's3.sock'}",
            # it counts what is copied as if it were not compressed, against volumes of 1 GiB
            "-volume.max=500",
            "-s3.autoCreateBucket=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-admin.ui=false",
            "-webdav=false",
            "-master.telemetry=false",
        ]

    def _wait(self) -> None:
        """Until it takes objects."""
        client, deadline = self.client(), time.monotonic() + PATIENCE
        while self._process is not None and self._process.poll() is None:
            try:
                client.put_object(Bucket=BUCKET, Key=".ready")
                return
            except (BotoCoreError, ClientError):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.2)
        self.kill()
        log = (self.folder / "log").read_text(errors="replace")
        raise StartFailed(f"weed does not serve:\n{log[-2000:]}")

    def client(self) -> Any:
        """The S3 library's own client, for looking at the server from the side."""
        return _session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=5),
        )


@cache
def _session() -> boto3.session.Session:
    """One for all, as it parses megabytes of JSON for its first client."""
    return boto3.session.Session()


class StartFailed(Exception):
    """The server ended, or did not come up in time."""


def free_ports(count: int) -> list[int]:
    """Ports that are free, and with them those that are GRPC higher.

    They are below the range that outgoing connections take theirs from, so that they are
    still free after a restart.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(11_000, 22_000)
        if port not in found and is_free(port) and is_free(port + GRPC):
            found.append(port)
    return found


def is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def running_seaweed(folder: Path) -> Iterator[Seaweed]:
    """Run a server that keeps its things in `folder`, which is removed in the end."""
    for attempt in range(3):  # somebody may take a port between our look and its start
        seaweed = Seaweed(folder)
        try:
            seaweed.start()
            break
        except StartFailed:
            if attempt == 2:
                raise
    try:
        yield seaweed
    finally:
        seaweed.kill()
        shutil.rmtree(folder)
