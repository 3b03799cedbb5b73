"""`make demo`: convert a sparse sample into every format and show the result."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import imgconv
from imgconv.units import GiB, KiB, MiB, format_size

FOLDER = Path("demo")
OUTPUTS = {
    "sample-copy.raw": imgconv.Raw(),
    "sample.raw.gz": imgconv.RawGz(),
    "sample.raw.zst": imgconv.RawZst(),
    "sample.tar.gz": imgconv.RawTarGz(),
    "sample.qcow2": imgconv.Qcow2(),
    "sample-small.qcow2": imgconv.Qcow2(compress="balanced"),
    "sample-zstd.qcow2": imgconv.Qcow2(compression_type="zstd"),
    "sample.vhd": imgconv.Vhd(),
    "sample-fixed.vhd": imgconv.Vhd(subformat="fixed"),
    "sample.vmdk": imgconv.Vmdk(),
    "sample-stream.vmdk": imgconv.Vmdk(subformat="streamOptimized"),
    "sample.vdi": imgconv.Vdi(),
    "sample.vhdx": imgconv.Vhdx(),
}
UNPACK = {"raw.gz": "gzip -d", "raw.zst": "zstd -d", "raw.tar.gz": "tar -xSzf"}


def make_sample(path: Path) -> None:
    """A 10 GiB disk with 64 MiB of data in runs of 256 KiB, half of it compressible."""
    rng = random.Random(1)
    with open(path, "wb") as file:
        file.truncate(10 * GiB)
        for i in range(256):
            file.seek(i * 40 * MiB + rng.randrange(39) * MiB)
            noise = rng.randbytes(128 * KiB)
            file.write(noise + noise if i % 2 else noise[:1024] * 256)


def verdict(raw: Path, path: Path, name: str) -> str:
    """What qemu-img, where there is one, thinks of an output that it can read."""
    if name.startswith("raw."):
        return f"(unpack it with {UNPACK[name]})"
    if shutil.which("qemu-img") is None:
        return "(no qemu-img here to compare)"
    known = {"vhd": "vpc"}.get(name, name)
    done = subprocess.run(
        ["qemu-img", "compare", "-f", "raw", "-F", known, raw, path],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"qemu-img compare: {(done.stdout or done.stderr).strip()}"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    raw = FOLDER / "sample.raw"
    make_sample(raw)
    print(f"{raw}: {format_size(10 * GiB)}, of which {format_size(64 * MiB)} are data\n")
    print(f"{'output':20} {'size':>12} {'on disk':>11} {'time':>7}")
    for name, options in OUTPUTS.items():
        path = FOLDER / name
        report = imgconv.convert(raw, path, options=options)
        on_disk = format_size(os.stat(path).st_blocks * 512)
        size = format_size(report.output_size)
        told = verdict(raw, path, options.name)
        print(f"{name:20} {size:>12} {on_disk:>11} {report.seconds:6.2f}s  {told}")
    show_image(FOLDER / "sample-zstd.qcow2")
    show_back(FOLDER / "sample.vhdx")
    show_upload(raw)
    show_export(raw)


def show_image(path: Path) -> None:
    """What a program learns of an image without reading the disk in it, and whether it is
    sound."""
    found = imgconv.info(path)
    options = ", ".join(f"{name}={value}" for name, value in found.options.items())
    print(f"\nimgconv info {path}\n  {found.format} {found.version}: {options}")
    with imgconv.open(path) as disk:
        entries = list(disk.map())
    packed = sum(entry.length for entry in entries if entry.compressed)
    print(f"imgconv map {path}\n  {len(entries)} extents, {format_size(packed)} compressed")
    report = imgconv.check(path)
    print(f"imgconv check {path}\n  {report.corruptions} corruptions, {report.leaks} leaks")


def show_back(image: Path) -> None:
    """Any format into any other, and what was written is read again and compared."""
    report = imgconv.convert(image, FOLDER / "back.vmdk", verify=True)
    assert report.verified
    print(f"\nimgconv convert --verify {image} {FOLDER / 'back.vmdk'}\n  verified")


def show_upload(raw: Path) -> None:
    """Into a store, in parts; a folder is the one that needs no account."""
    url = f"file://{FOLDER.absolute()}/uploaded.qcow2"
    report = imgconv.convert(raw, url, clobber=True)
    assert report.upload is not None
    parts, sent = len(report.upload.parts), format_size(report.upload.wire_bytes)
    print(f"\n{url}\n  {parts} parts, sent {sent}, CRC-64/NVME {report.upload.crc}")
    print(f"  {verdict(raw, FOLDER / 'uploaded.qcow2', 'qcow2')}")


def show_export(raw: Path) -> None:
    """A whole image into a bucket, here a folder, each disk in two formats from one read."""
    (FOLDER / "bucket").mkdir(exist_ok=True)
    task = imgconv.export(
        imgconv.ExportRequest(
            image_id="m-demo",
            bucket="bucket",
            image_format="qcow2",
            also=(imgconv.ExportFormat("vhd"),),
        ),
        {"system": raw, "data:xvdb": FOLDER / "sample.vdi"},
        store=f"file://{FOLDER.absolute()}",
        settings=imgconv.ExportSettings(overwrite=True),
        state=FOLDER / "tasks.sqlite",
    )
    verified = imgconv.verify_export(task.manifest)
    print(f"\nexport {task.task_id}: {task.status}, {task.process}")
    for one in verified.objects:
        size = format_size(one.size)
        print(f"  {one.url}\n  {size}, {one.checksum} {one.crc}: {one.problem or 'verified'}")


if __name__ == "__main__":
    main()
