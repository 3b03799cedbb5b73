"""The digest of a disk: defined once more here, slowly, and the same for every format."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

import imgconv
from tests.support.cli import assert_one_line_error
from tests.support.cli import imgconv as run_cli

KIB = 1 << 10
BLOCK, GROUP = 64 * KIB, 64 << 20


def reference(content: bytes) -> str:
    """Every block is hashed, zeros or not."""
    groups = b""
    for start in range(0, len(content), GROUP):
        group = content[start : start + GROUP]
        blocks = [group[at : at + BLOCK] for at in range(0, len(group), BLOCK)]
        groups += sha256(b"".join(sha256(block).digest() for block in blocks)).digest()
    return sha256(f"imgconv sha256-64k {len(content)}\n".encode() + groups).hexdigest()


def disk(size: int, *data: tuple[int, bytes]) -> bytes:
    content = bytearray(size)
    for at, piece in data:
        content[at : at + len(piece)] = piece
    return bytes(content)


DISKS = {
    "zeros": disk(3 * BLOCK),
    "sector": disk(512),
    "full sector": disk(512, (0, b"x" * 512)),
    "end of a block": disk(2 * BLOCK, (2 * BLOCK - 1, b"!")),
    "short last block": disk(BLOCK + 512, (BLOCK, b"last")),
    "zero groups between": disk(3 * GROUP + 1536, (5, b"a"), (3 * GROUP + 1000, b"b")),
    "across groups": disk(2 * GROUP, (GROUP - 700, b"z" * 1400)),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("content", DISKS.values(), ids=DISKS)
def test_follows_its_definition(tmp_path: Path, content: bytes, threads: int) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(content)
    found = imgconv.checksum(path, threads=threads)
    assert (found.algorithm, found.size) == ("sha256-64k", len(content))
    assert found.digest == reference(content)


@pytest.mark.parametrize("name", ["disk.vhd", "disk.vdi", "disk.vhdx", "sparse.raw"])
def test_is_the_same_in_every_format(tmp_path: Path, name: str) -> None:
    content = disk(GROUP + 512 * 63, (9, b"a" * 5000), (GROUP + 100, b"b"))
    plain = tmp_path / "plain.raw"
    plain.write_bytes(content)
    imgconv.convert(plain, tmp_path / name, options="vhd" if name.endswith("vhd") else None)
    with imgconv.open(tmp_path / name) as opened:
        size = opened.size
    padded = content + bytes(size - len(content))  # a VHD's geometry may round up
    assert imgconv.checksum(tmp_path / name).digest == reference(padded)


def test_data_outside_a_hole_counts(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(disk(4 * BLOCK, (BLOCK, b"x")))
    assert imgconv.checksum(path).data_bytes == BLOCK


def test_command(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(DISKS["short last block"])
    digest = reference(DISKS["short last block"])
    done = run_cli("checksum", str(path))
    assert (done.returncode, done.stdout) == (0, f"sha256-64k:{digest}  {path}\n")
    told = json.loads(run_cli("checksum", "--json", str(path)).stdout)
    assert told["digest"] == digest
    assert_one_line_error(run_cli("checksum", str(tmp_path / "none")), "No such file")
