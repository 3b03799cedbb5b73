"""Images made by qemu-img, converted to raw and mapped: imgconv beside qemu-img."""

import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import corpora
from results import Record, Recorder, best_of_qemu_img, median, most, ratio
from rounds import alternate
from settings import Settings, parser, settings_of
from tools import OURS, QEMU_IMG, verify

from imgconv.units import format_size

PLAIN, COMPRESSED, MAP = 1.2, 1.5, 1.0  # how many times faster than qemu-img we are to be


@dataclass(frozen=True)
class Case:
    """A kind of image, by the arguments that make qemu-img write it, and what to do with it."""

    name: str
    corpus: str
    qemu_format: str
    options: str
    aim: float
    maps: bool = False

    def make(self, source: Path, image: Path) -> None:
        command = f"qemu-img convert -m 16 -W -f raw -O {self.qemu_format} {self.options}"
        subprocess.run([*shlex.split(command), str(source), str(image)], check=True)

    def commands(self, bin: Path, image: Path, out: Path) -> dict[str, list[str]]:
        """Return what each tool is to do, by the names that `results.py` knows."""
        ours = f"-f {self.qemu_format.replace('vpc', 'vhd')} {image}"
        theirs = f"-f {self.qemu_format} {image}"
        if self.maps:
            found = {
                OURS: f"{bin}/imgconv map --json {ours}",
                QEMU_IMG[0]: f"qemu-img map --output=json {theirs}",
            }
        else:
            convert = "qemu-img convert -O raw"
            found = {
                OURS: f"{bin}/imgconv convert {ours} {out} -O raw -q",
                QEMU_IMG[0]: f"{convert} {theirs} {out}",
                QEMU_IMG[1]: f"{convert} -m 16 -W {theirs} {out}",
            }
        return {name: shlex.split(text) for name, text in found.items()}


CASES = (
    Case("qcow2", "mixed", "qcow2", "", PLAIN),
    Case("vmdk", "mixed", "vmdk", "", PLAIN),
    Case("vdi", "mixed", "vdi", "", PLAIN),
    Case("vhd", "mixed", "vpc", "-o force_size=on", PLAIN),
    Case("qcow2 zlib", "filesystem", "qcow2", "-c", COMPRESSED),
    Case("qcow2 zstd", "filesystem", "qcow2", "-c -o compression_type=zstd", COMPRESSED),
    Case("large qcow2 zstd", "system", "qcow2", "-c -o compression_type=zstd", COMPRESSED),
    Case("streamOptimized", "filesystem", "vmdk", "-o subformat=streamOptimized", COMPRESSED),
    Case("map of qcow2", "huge", "qcow2", "", MAP, maps=True),
)


def cell(case: Case, source: Path, image: Path, out: Path, settings: Settings) -> Record:
    """Measure one case, and return the tools' samples with what they were asked."""
    case.make(source, image)
    every = case.commands(settings.bin, image, out)
    check = (lambda _: None) if case.maps else partial(verify, source, out, "raw")
    about = {
        "case": case.name,
        "corpus": case.corpus,
        "virtual_size": source.stat().st_size,
        "image_size": image.stat().st_blocks * 512,
    }
    samples = alternate(every, out, settings, check)
    image.unlink()
    return Recorder("reading", settings).add(about, every, samples)


def line(record: Record) -> str:
    """One line for the terminal."""
    return (
        f"{record['case']:16} {ratio(record):6.2f}x   {median(record, OURS):.3f} s, "
        f"{best_of_qemu_img(record):.3f} s   {format_size(most(record, OURS, 'peak_memory'))}"
    )


def rows(records: Sequence[Record]) -> Iterator[tuple[Case, Record]]:
    """Pair each case with its record, in the order of the cases."""
    found = {record["case"]: record for record in records}
    for case in CASES:
        if case.name in found:
            yield case, found[case.name]


def main() -> None:
    arguments = parser(__doc__)
    names = [case.name for case in CASES]
    arguments.add_argument("--case", choices=names, action="append")
    chosen = arguments.parse_args()
    settings = settings_of(chosen)
    cases = [case for case in CASES if case.name in (chosen.case or names)]
    with settings.workplace() as folder:
        for corpus in dict.fromkeys(case.corpus for case in cases):
            source = folder / f"{corpus}.raw"
            corpora.make(corpus, source, settings.scale)
            for case in (c for c in cases if c.corpus == corpus):
                record = cell(case, source, folder / "image", folder / "out", settings)
                print(line(record), flush=True)
            source.unlink()


if __name__ == "__main__":
    main()
