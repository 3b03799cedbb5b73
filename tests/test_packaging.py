"""What `pip install .` gives: a command, a typed package, and no sources."""

import subprocess
import sys
import venv
from pathlib import Path

from support import disks
from support.peers import assert_same_guest

from imgconv.units import MiB

ROOT = Path(__file__).parent.parent


def test_an_installed_wheel_converts(tmp_path: Path) -> None:
    """Built from a clean copy, as a stranger would; dependencies come from this test's own
    environment, because fetching them proves nothing about this package."""
    copy = tmp_path / "copy"
    subprocess.run(["git", "-C", ROOT, "checkout-index", "-a", f"--prefix={copy}/"], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, copy]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("imgconv-*.whl")

    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    (target,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, wheel],
        check=True,
    )
    own = next(p for p in sys.path if p.endswith("site-packages"))
    (target / "dependencies.pth").write_text(own + "\n")
    assert (target / "imgconv" / "py.typed").exists()
    assert not list(target.rglob("*.c"))

    raw = disks.holes(tmp_path / "d.raw", MiB)
    command = [python, "-m", "imgconv", raw, tmp_path / "o.qcow2", "-q"]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert_same_guest(raw, tmp_path / "o.qcow2", "qcow2")
    code = "import imgconv; print(imgconv.__file__)"
    where = subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    ).stdout
    assert str(tmp_path) in where
