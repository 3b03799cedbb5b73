"""Tables in Markdown, and the places in documents that are written by a program."""

from collections.abc import Sequence
from pathlib import Path


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table, without the end of its last line."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def put(text: str, path: Path, name: str) -> None:
    """Replace what stands in a file between the two comments of that name."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, begun, rest = path.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise SystemExit(f"{path}: has no {begin} and {end} after it")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")
