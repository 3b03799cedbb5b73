"""What is sound is called so: all that we write, all that qemu-img writes, and the counts of
both checks agree."""

import subprocess
from pathlib import Path

import pytest
from support import disks
from support.damage import COUNTS, USAGE, assert_agrees, assert_clean, check
from support.peers import CHECKABLE, assert_qemu_img, made_by_qemu
from support.variants import VARIANTS

import imgconv
from imgconv import ReadOptions
from imgconv.units import KiB, MiB

SIZE = 9 * MiB + 5 * KiB
QCOW2 = [
    "compat=0.10",
    "compat=v3",
    "cluster_size=512",
    "cluster_size=2M",
    "extended_l2=on",
    "extended_l2=on,cluster_size=16k",
    *(f"refcount_bits={1 << order}" for order in range(7)),
    "lazy_refcounts=on",
    "preallocation=metadata",
    "preallocation=full",
]
PACKED = [
    "compression_type=zlib",
    "compression_type=zstd",
    "cluster_size=512",
    "cluster_size=2M,compression_type=zstd",
    "extended_l2=on",
    "compat=0.10",
]
VMDK = ["monolithicSparse", "monolithicSparse,zeroed_grain=on", "streamOptimized"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disks.random_runs(tmp_path_factory.mktemp("raw") / "disk.raw", SIZE)


@pytest.mark.parametrize("content", [disks.random_runs, disks.empty, disks.last_byte])
@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "raw"])
def test_what_imgconv_writes(tmp_path: Path, name: str, content: type) -> None:
    raw = content(tmp_path / "disk.raw", SIZE)  # type: ignore[call-arg]
    format_name = VARIANTS[name].name
    image = tmp_path / f"disk.{format_name}"
    imgconv.convert(raw, image, options=VARIANTS[name])
    if format_name not in CHECKABLE:
        report = check(image, format_name)
    else:
        keys = COUNTS + USAGE if format_name == "qcow2" else COUNTS
        report = assert_agrees(image, format_name, keys)
    assert_clean(report)
    assert not report.warnings, report.findings


@pytest.mark.parametrize("options", QCOW2)
def test_qcow2_of_qemu(raw: Path, tmp_path: Path, options: str) -> None:
    image = made_by_qemu(raw, tmp_path / "disk.qcow2", "qcow2", "-o", options)
    assert_clean(assert_agrees(image, "qcow2", COUNTS + USAGE))


@pytest.mark.parametrize("options", PACKED)
def test_compressed_qcow2_of_qemu(raw: Path, tmp_path: Path, options: str) -> None:
    image = made_by_qemu(raw, tmp_path / "disk.qcow2", "qcow2", "-c", "-o", options)
    report = assert_agrees(image, "qcow2", COUNTS + USAGE)
    assert_clean(report)
    assert report.decoded == report.usage.compressed_clusters
    assert check(image, "qcow2", data=False).decoded == 0


def test_qcow2_with_a_past(tmp_path: Path) -> None:
    """Snapshots that share clusters, zeros, holes, bitmaps, and data written after them."""
    image = tmp_path / "disk.qcow2"
    assert_qemu_img("create", "-f", "qcow2", image, "20M")
    for number in (1, 2, 3):
        write(image, f"write -P {number} 0 1M", f"write -P 9 {number}M 300k")
        assert_qemu_img("snapshot", "-c", f"s{number}", image)
    write(image, "write 5M 1M", "write -z 7M 1M", "discard 1M 64k")
    assert_clean(assert_agrees(image, "qcow2", COUNTS + USAGE))
    for name, granularity in (("a", "512"), ("b", "64k")):
        assert_qemu_img("bitmap", "--add", "-g", granularity, image, name)
    write(image, "write 6M 1M", "write 19M 1M")
    assert_clean(assert_agrees(image, "qcow2", COUNTS + USAGE))


@pytest.mark.parametrize("raw_data", ["off", "on"])
def test_qcow2_with_a_data_file(tmp_path: Path, raw_data: str) -> None:
    image = tmp_path / "disk.qcow2"
    options = f"data_file={tmp_path / 'data.raw'},data_file_raw={raw_data}"
    assert_qemu_img("create", "-f", "qcow2", "-o", options, image, "20M")
    write(image, "write 0 1M", "write 7M 1M")
    (tmp_path / "moved").mkdir()
    assert_clean(assert_agrees(image, "qcow2", COUNTS + USAGE))
    alone = image.rename(tmp_path / "moved" / "disk.qcow2")
    (tmp_path / "data.raw").unlink()  # which is never opened
    assert_clean(check(alone, "qcow2"))


def write(image: Path, *commands: str) -> None:
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *words, image], check=True, capture_output=True)


@pytest.mark.parametrize("options", VMDK)
def test_vmdk_of_qemu(raw: Path, tmp_path: Path, options: str) -> None:
    image = made_by_qemu(raw, tmp_path / "disk.vmdk", "vmdk", "-o", f"subformat={options}")
    assert_clean(assert_agrees(image, "vmdk"))


@pytest.mark.parametrize("options", ["twoGbMaxExtentSparse", "monolithicFlat"])
def test_vmdk_in_parts_of_qemu(raw: Path, tmp_path: Path, options: str) -> None:
    """Parts are looked at if they may be; otherwise the check is not complete."""
    image = made_by_qemu(raw, tmp_path / "disk.vmdk", "vmdk", "-o", f"subformat={options}")
    report = check(image, "vmdk")
    assert (report.exit_status, report.check_errors) == (1, 1)
    assert "--allow-references" in report.findings[0].text
    assert_clean(check(image, "vmdk", read=ReadOptions(allow_references="same-folder")))


@pytest.mark.parametrize("options", ["subformat=dynamic", "subformat=fixed", "force_size=on"])
def test_vhd_of_qemu(raw: Path, tmp_path: Path, options: str) -> None:
    report = check(made_by_qemu(raw, tmp_path / "disk.vhd", "vpc", "-o", options), "vhd")
    assert_clean(report)
    assert not report.warnings


@pytest.mark.parametrize("options", ["static=off", "static=on"])
def test_vdi_of_qemu(raw: Path, tmp_path: Path, options: str) -> None:
    report = assert_agrees(
        made_by_qemu(raw, tmp_path / "disk.vdi", "vdi", "-o", options), "vdi"
    )
    assert_clean(report)
    assert not report.warnings
