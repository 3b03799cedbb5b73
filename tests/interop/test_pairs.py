"""Every kind of image that qemu-img makes, into every format: the disk that qemu-img reads."""

import subprocess
from pathlib import Path

import pytest
from support import disks
from support.peers import assert_qemu_img, qemu_img, qemu_name

import imgconv
from imgconv import ReadOptions
from imgconv.formats import format_names
from imgconv.units import KiB, MiB

SIZE = 3 * MiB + 7 * KiB
TARGETS = [name for name in format_names() if not name.startswith("raw.")]
PLAIN = {
    "vhd": ["", "subformat=fixed", "force_size=on"],
    "vdi": ["", "static=on"],
    "vhdx": ["", "subformat=fixed,block_size=1M", "block_size=256M", "log_size=3M"],
    "vmdk": [
        "subformat=monolithicSparse",
        "subformat=streamOptimized",
        "subformat=monolithicFlat",
        "subformat=twoGbMaxExtentSparse",
        "subformat=twoGbMaxExtentFlat",
        "zeroed_grain=on",
    ],
    "qcow2": [
        "compat=0.10",
        "compat=1.1",
        "extended_l2=on",
        "lazy_refcounts=on",
        "preallocation=metadata",
        "preallocation=falloc",
        "preallocation=full",
        *(f"cluster_size={size}" for size in ("512", "4k", "2M")),
        "extended_l2=on,cluster_size=16k",
        *(f"refcount_bits={bits}" for bits in (1, 2, 4, 8, 32, 64)),
    ],
}
PACKED = [
    "compression_type=zlib",
    "compression_type=zstd",
    "cluster_size=512",
    "cluster_size=2M,compression_type=zstd",
    "compat=0.10",
    "extended_l2=on",
]
CASES = [
    ("raw", "", False),
    *((name, options, False) for name, every in PLAIN.items() for options in every),
    *(("qcow2", options, True) for options in PACKED),
]


def written(folder: Path, name: str, options: str, packed: bool) -> Path:
    """An image of a disk with data, zeros and holes, and in qcow2 with more written to it."""
    raw, image = disks.random_runs(folder / "disk.raw", SIZE), folder / f"in.{name}"
    words = ["-o", options] if options else []
    words += ["-c"] if packed else []
    kind = qemu_name(name)
    assert_qemu_img("convert", "-f", "raw", "-O", kind, *words, str(raw), image)
    if name == "qcow2":
        lines = "write -P 7 1000k 70k", "write -z 2000k 130k", "discard 64k 64k"
        commands = [word for line in lines for word in ("-c", line)]
        subprocess.run(
            ["qemu-io", "-f", kind, *commands, image], check=True, capture_output=True
        )
    return image


@pytest.mark.parametrize(
    ("name", "options", "packed"), CASES, ids=lambda value: str(value).replace("=", "-")
)
def test_into_every_format(tmp_path: Path, name: str, options: str, packed: bool) -> None:
    image = written(tmp_path, name, options, packed)
    read = ReadOptions(allow_references="same-folder")
    for target in TARGETS:
        out = tmp_path / f"out.{target}"
        imgconv.convert(image, out, source_format=name, read=read, options=target)
        kinds = "-f", qemu_name(name), "-F", qemu_name(target)
        done = qemu_img("compare", *kinds, image, out)
        assert done.returncode == 0, f"{target}: {done.stdout}{done.stderr}"
        out.unlink()


# Containers, which qemu-img knows nothing of: as inputs made by their own tools, as outputs
# unpacked by them.
PACKERS = {
    "raw.gz": "gzip -c disk.raw > in",
    "raw.zst": "zstd -q -c disk.raw > in",
    "raw.tar.gz": "tar --format=oldgnu -Sczf in disk.raw",
}
UNPACKERS = {
    "raw.gz": "gzip -dc < out > back.raw",
    "raw.zst": "zstd -q -dc < out > back.raw",
    "raw.tar.gz": "tar -xOzf out > back.raw",
}


def shell(folder: Path, line: str) -> None:
    subprocess.run(line, shell=True, check=True, cwd=folder)


@pytest.mark.parametrize("name", PACKERS)
def test_from_containers_into_every_format(tmp_path: Path, name: str) -> None:
    raw = disks.random_runs(tmp_path / "disk.raw", SIZE)
    shell(tmp_path, PACKERS[name])
    for target in TARGETS:
        out = tmp_path / f"out.{target}"
        imgconv.convert(tmp_path / "in", out, source_format=name, options=target)
        done = qemu_img("compare", "-f", "raw", "-F", qemu_name(target), raw, out)
        assert done.returncode == 0, f"{target}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("target", UNPACKERS)
def test_from_every_format_into_containers(tmp_path: Path, target: str) -> None:
    sources = [("raw", "", False), *((name, every[0], False) for name, every in PLAIN.items())]
    for name, options, packed in [*sources, ("qcow2", "compression_type=zstd", True)]:
        image = written(tmp_path, name, options, packed)
        read = ReadOptions(allow_references="same-folder")
        out = tmp_path / "out"
        imgconv.convert(image, out, source_format=name, read=read, options=target)
        shell(tmp_path, UNPACKERS[target])
        kinds = "-f", qemu_name(name), "-F", "raw"
        done = qemu_img("compare", *kinds, image, tmp_path / "back.raw")
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"


COMPRESSED = {
    "qcow2-zlib": imgconv.Qcow2(compress="fast"),
    "qcow2-zstd": imgconv.Qcow2(compress="fast", compression_type="zstd"),
    "vmdk-stream": imgconv.Vmdk(subformat="streamOptimized", compress="fast"),
    "vhdx-fixed": imgconv.Vhdx(subformat="fixed"),
    "vhd-fixed": imgconv.Vhd(subformat="fixed"),
    "vdi-fixed": imgconv.Vdi(subformat="fixed"),
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_from_every_format_into_other_subformats(tmp_path: Path, kind: str) -> None:
    target = COMPRESSED[kind]
    for name, every in PLAIN.items():
        image = written(tmp_path, name, every[0], False)
        read = ReadOptions(allow_references="same-folder")
        out = tmp_path / f"out.{target.name}"
        imgconv.convert(image, out, source_format=name, read=read, options=target)
        kinds = "-f", qemu_name(name), "-F", qemu_name(target.name)
        done = qemu_img("compare", *kinds, image, out)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
