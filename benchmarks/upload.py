"""Export into object storage, beside qemu-img to a file and boto3's upload_file after it.

Against a loopback server that discards bodies (what is left is what the client costs), or
with --seaweedfs against a real one, which has limits of its own; see README.md.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import corpora
from processes import Usage, machine, run
from tools import QEMU_NAMES

SUPPORT = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(SUPPORT))
BUCKET = "exports"
FORMATS = ("qcow2", "vmdk", "raw")
UPLOAD = """
import sys, boto3
path, endpoint, key = sys.argv[1:]
client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
client.upload_file(path, "exports", key)
"""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "imgconv-access", "AWS_SECRET_ACCESS_KEY": "imgconv-secret"}


@contextmanager
def discarding() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(SUPPORT / "support" / "discard_server.py"), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


@contextmanager
def seaweedfs() -> Iterator[str]:
    from support.seaweed import running_seaweed

    with running_seaweed(Path(tempfile.mkdtemp())) as server:
        yield server.endpoint_url


def sides(
    source: Path, name: str, endpoint: str, key: str, extra: list[str]
) -> dict[str, list[list[str]]]:
    """The commands of each side, in turn."""
    known, out = QEMU_NAMES.get(name, name), source.with_name("temporary")
    convert = ["qemu-img", "convert", "-f", "raw", "-O", known, "-m", "16", "-W"]
    ours = [sys.executable, "-m", "imgconv", str(source), f"s3://{BUCKET}/ours-{key}"]
    return {
        "imgconv": [[*ours, "-O", name, "-q", "--endpoint-url", endpoint, *extra]],
        "qemu-img + upload_file": [
            [*convert, str(source), str(out)],
            [sys.executable, "-c", UPLOAD, str(out), endpoint, f"theirs-{key}"],
        ],
    }


def measure(
    source: Path, name: str, endpoint: str, runs: int, extra: list[str]
) -> dict[str, list[Usage]]:
    """Alternate the two sides; one round that is not counted comes first."""
    samples: dict[str, list[Usage]] = {}
    for counted in range(-1, runs):
        key = f"{source.stem}-{counted}.{name}"
        for side, commands in sides(source, name, endpoint, key, extra).items():
            usage = run(*commands)
            source.with_name("temporary").unlink(missing_ok=True)
            if counted >= 0:
                samples.setdefault(side, []).append(usage)
    return samples


def shown(samples: dict[str, list[Usage]]) -> str:
    seconds = [statistics.median(u.seconds for u in s) for s in samples.values()]
    cpu = [statistics.median(u.cpu_seconds for u in s) for s in samples.values()]
    peak = max(u.peak_memory for u in samples["imgconv"])
    return (
        f"{seconds[1] / seconds[0]:5.2f}x faster ({seconds[0]:.2f} s, {seconds[1]:.2f} s), "
        f"{cpu[0] / cpu[1]:.2f} of the client CPU ({cpu[0]:.2f} s, {cpu[1]:.2f} s), "
        f"peak {peak >> 20} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--corpus", choices=corpora.CORPORA, action="append")
    parser.add_argument("--format", choices=(*FORMATS, "vhd", "vdi"), action="append")
    parser.add_argument("--folder", default="/dev/shm", help="where corpora and files go")
    parser.add_argument("--seaweedfs", action="store_true", help="against a real server")
    parser.add_argument("--store", default="", help="options of the store, for imgconv")
    arguments = parser.parse_args()
    os.environ |= CREDENTIALS
    extra = ["--store", arguments.store] if arguments.store else []
    results = Path(__file__).parent / "results" / "upload.jsonl"
    results.parent.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as folder,
        seaweedfs() if arguments.seaweedfs else discarding() as endpoint,
    ):
        for name in arguments.corpus or ("dense", "mixed"):
            source = Path(folder) / f"{name}.raw"
            corpora.make(name, source, arguments.scale)
            for target in arguments.format or FORMATS:
                samples = measure(source, target, endpoint, arguments.runs, extra)
                print(f"{name:6} {target:6} {shown(samples)}", flush=True)
                record = {
                    "corpus": name,
                    "scale": arguments.scale,
                    "format": target,
                    "server": "seaweedfs" if arguments.seaweedfs else "discarding",
                    "boto3": version("boto3"),
                    **machine(),
                    "samples": {t: [asdict(u) for u in s] for t, s in samples.items()},
                }
                with open(results, "a") as file:
                    file.write(json.dumps(record) + "\n")
            source.unlink()


if __name__ == "__main__":
    main()
