"""What the documents say is still so."""

import re
import subprocess
from pathlib import Path

import pytest

from imgconv.errors import ImgconvError
from imgconv.formats import format_class, format_names
from imgconv.options import describe_options
from imgconv.stores import TABLE as STORES

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()


def names(document: Path) -> set[str]:
    """File names in backquotes: with a slash, or ending in a known extension."""
    quoted = re.findall(r"`([\w./-]+)`", document.read_text())
    endings = (".py", ".md", ".c", ".h", ".toml", "/")
    return {q for q in quoted if q.endswith(endings) and not q.startswith((".venv", "/"))}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_every_file_named_exists(document: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in names(document):
        assert any(
            f"/{file}".endswith(f"/{name}") or f"/{name}" in f"/{file}" for file in tracked
        ), name


def test_readme_lists_every_format_with_every_option() -> None:
    for name in format_names():
        assert f"`{name}`" in README
        for accepts, _, _ in describe_options(format_class(name)):
            assert accepts.partition("=")[0] in README


def test_every_kind_of_store_is_documented() -> None:
    text = (ROOT / "docs" / "exporting.md").read_text()
    for scheme in STORES:
        assert f"`{scheme}://" in text


def tree(kind: type[ImgconvError]) -> list[type[ImgconvError]]:
    return [kind, *(c for child in kind.__subclasses__() for c in tree(child))]


def test_every_error_code_is_documented() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    for kind in tree(ImgconvError):
        assert f"`{kind.code}`" in text


def test_every_module_has_its_line_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for path in (ROOT / "imgconv").glob("*.py"):
        if not path.name.startswith("__"):
            assert f"`{path.name}`" in text, path.name


def test_make_targets_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for document in DOCUMENTS:
        for target in re.findall(r"`make ([a-z-]+)`", document.read_text()):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
