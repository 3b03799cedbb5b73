"""Paths that images name: where they lead, and what becomes of them meanwhile."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile.made import C, extension, make_qcow2

import imgconv
from imgconv import ReadOptions
from imgconv.errors import ImageUnsupported, SourceError, SourceUnreadable
from imgconv.ondisk import qcow2
from imgconv.sources import references

HERE = ReadOptions(allow_references="same-folder")
SECRET, WANTED = b"s" * (4 * C), b"w" * (4 * C)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a base in it, beside one with a secret of the same name."""
    for name, content in (("in", WANTED), ("secret", SECRET)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "base.raw").write_bytes(content)
    return tmp_path / "in"


def above(folder: Path, named: str) -> Path:
    """An image of nothing, over the base of that name."""
    raw = named.encode()
    made = make_qcow2(
        front={"backing_file_offset": 1024, "backing_file_size": len(raw)},
        extensions=extension(qcow2.BACKING_FORMAT, b"raw"),
        l2={},
        pieces={1024: raw},
    )
    return made.write(folder / "top.qcow2")


def found(image: Path, read: ReadOptions) -> bytes:
    with imgconv.open(image, read=read) as disk:
        return disk.read(0, disk.size)


def allowing(*paths: Path) -> ReadOptions:
    return ReadOptions(allow_references=tuple(map(str, paths)))


@pytest.mark.parametrize(
    "named", ["base.raw", "./base.raw", "sub/../base.raw", "sub/link/base.raw", "again.raw"]
)
def test_ways_to_what_is_allowed(folder: Path, named: str) -> None:
    """A path may have links and dots in it: what counts is where it leads."""
    (folder / "sub").mkdir()
    (folder / "sub" / "link").symlink_to(folder)
    (folder / "again.raw").symlink_to("base.raw")
    image = above(folder, named)
    for allowed in (folder, folder / "base.raw", folder / "sub" / "link"):
        assert found(image, allowing(allowed)) == WANTED
    if named != "base.raw":
        with pytest.raises((ImageUnsupported, SourceUnreadable)):
            found(image, HERE)


@pytest.mark.parametrize(
    "named",
    [
        "../secret/base.raw",
        "link/base.raw",
        "sub/../../secret/base.raw",
        "link/../secret/base.raw",
        "base.raw/../../secret/base.raw",
        "/proc/self/cwd/secret/base.raw",
        "out.raw",
    ],
)
def test_ways_out(folder: Path, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    (folder / "sub").mkdir()
    (folder / "link").symlink_to(folder.parent / "secret")
    (folder / "out.raw").symlink_to("../secret/base.raw")
    image = above(folder, named)
    for read in (allowing(folder), allowing(folder / "base.raw"), HERE, ReadOptions()):
        with pytest.raises((ImageUnsupported, SourceUnreadable)):
            found(image, read)


def test_folders_below_an_allowed_one_are_not_meant(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "base.raw").rename(folder / "sub" / "base.raw")
    with pytest.raises(ImageUnsupported, match="not allowed"):
        found(above(folder, "sub/base.raw"), allowing(folder))


# What somebody does between the look at a path and the use that is made of it.


def swap_folder(folder: Path) -> None:
    folder.rename(folder.with_name("away"))
    folder.symlink_to("secret")


def replace_folder(folder: Path) -> None:
    """By one that is no link."""
    folder.rename(folder.with_name("away"))
    folder.with_name("secret").rename(folder)


def link_file(folder: Path) -> None:
    (folder / "base.raw").unlink()
    (folder / "base.raw").symlink_to("../secret/base.raw")


def make_fifo(folder: Path) -> None:
    (folder / "base.raw").unlink()
    os.mkfifo(folder / "base.raw")


def put_another(folder: Path) -> None:
    os.replace(folder.with_name("secret") / "base.raw", folder / "base.raw")


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, act: Callable[[Path], None]
) -> None:
    """Let something happen right after the reader's function `name` has returned."""
    real = getattr(references, name)

    def watched(*arguments: object) -> object:
        answer = real(*arguments)
        monkeypatch.setattr(references, name, real)
        act(folder)
        return answer

    monkeypatch.setattr(references, name, watched)


@pytest.mark.parametrize("act", [swap_folder, link_file, make_fifo])
def test_what_was_resolved_is_what_is_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], None]
) -> None:
    image = above(folder, "base.raw")
    meanwhile(monkeypatch, folder, "_allowed_path", act)
    with pytest.raises(SourceUnreadable, match=r"base\.raw: "):
        found(image, allowing(folder))


@pytest.mark.parametrize("act", [swap_folder, replace_folder, link_file, make_fifo])
def test_the_same_folder_is_the_one_the_image_is_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], None]
) -> None:
    image = above(folder, "base.raw")
    meanwhile(monkeypatch, folder, "_allowed_path", act)
    with pytest.raises(SourceUnreadable, match=r"base\.raw: "):
        found(image, HERE)


@pytest.mark.parametrize("act", [link_file, make_fifo, put_another])
def test_what_was_looked_at_is_what_is_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], None]
) -> None:
    image = above(folder, "base.raw")
    meanwhile(monkeypatch, folder, "_check_kind", act)
    with pytest.raises(SourceUnreadable, match=r"base\.raw: "):
        found(image, HERE)


def test_a_folder_that_moves_while_it_is_open_does_no_harm(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = above(folder, "base.raw")
    meanwhile(monkeypatch, folder, "_check_kind", swap_folder)
    assert found(image, HERE) == WANTED


def test_no_descriptor_is_left(folder: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for named in ("base.raw", "gone", "sub/gone", "top.qcow2"):
        try:
            found(above(folder, named), allowing(folder))
        except SourceError:
            continue
    assert os.listdir("/proc/self/fd") == before
