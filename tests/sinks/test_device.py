"""A block device as output: raw only, in place, zeros where the image has zeros."""

import subprocess
from pathlib import Path

import pytest
from support import disks
from support.cli import assert_one_line_error
from support.cli import imgconv as command
from support.mounts import loop_device, mounted

import imgconv
from imgconv.errors import OutputExists, OutputRefused, UnsupportedCombination, UsageError
from imgconv.units import MiB


@pytest.mark.parametrize("sector", ["512", "4096"])
def test_the_image_replaces_what_was_there(tmp_path: Path, root: None, sector: str) -> None:
    """Also its zeros; what lies behind the image is left alone."""
    raw = disks.holes(tmp_path / "d.raw", 6 * MiB + 512 * 3)
    old = disks.write(tmp_path / "device", 8 * MiB, {0: b"\xff" * (8 * MiB)})
    with loop_device(old, "--sector-size", sector) as device:
        report = imgconv.convert(raw, device, options=imgconv.Raw())
        assert report.output_size == 6 * MiB + 512 * 3
    content = old.read_bytes()
    assert content[: raw.stat().st_size] == raw.read_bytes()
    assert set(content[raw.stat().st_size :]) == {0xFF}


def test_what_is_refused_before_a_byte_is_written(tmp_path: Path, root: None) -> None:
    raw = disks.dense(tmp_path / "d.raw", 8 * MiB)
    old = disks.write(tmp_path / "device", 4 * MiB, {0: b"\xff" * (4 * MiB)})
    with loop_device(old) as device:
        with pytest.raises(OutputRefused, match="holds 4194304 bytes, the image needs 8388608"):
            imgconv.convert(raw, device, options=imgconv.Raw())
        with pytest.raises(UnsupportedCombination, match="takes raw only, not qcow2"):
            imgconv.convert(raw, device, options=imgconv.Qcow2())
        with pytest.raises(OutputExists):
            imgconv.convert(raw, device, options=imgconv.Raw(), clobber=False)
        with pytest.raises(UsageError, match="is the input itself"):
            imgconv.convert(device, device, options=imgconv.Raw())
        assert_one_line_error(command(raw, device, "-O", "vhd"), "raw only", status=2)
    assert set(old.read_bytes()) == {0xFF}


def test_a_mounted_device_is_refused(tmp_path: Path, root: None) -> None:
    image = disks.empty(tmp_path / "fs", 8 * MiB)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    raw = disks.dense(tmp_path / "d.raw", MiB)
    with (
        loop_device(image) as device,
        mounted(tmp_path / "mounted", "mount", device),
        pytest.raises(OutputRefused, match="busy"),
    ):
        imgconv.convert(raw, device, options=imgconv.Raw())
