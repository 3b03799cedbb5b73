"""What a conversion of nothing costs: an empty 1 TiB disk, beside `import numpy`."""

from functools import partial

from results import Record, Recorder, median
from rounds import alternate
from settings import parser, settings_of
from tools import CONVERTERS, FORMATS, commands, verify

from imgconv.units import TiB

NUMPY = "import numpy"


def line(record: Record) -> str:
    ours = median(record, "imgconv") / median(record, NUMPY)
    tools = "   ".join(f"{name} {median(record, name):.3f} s" for name in record["tools"])
    return f"empty 1 TiB {record['format']:5} {ours:5.2f} times {NUMPY}   {tools}"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--format", choices=FORMATS, action="append")
    chosen = arguments.parse_args()
    settings = settings_of(chosen)
    recorder = Recorder("startup", settings)
    python, imgconv = str(settings.bin / "python"), str(settings.bin / "imgconv")
    floor = {"python": [python, "-c", "pass"], NUMPY: [python, "-c", NUMPY]}
    floor["imgconv --version"] = [imgconv, "--version"]
    with settings.workplace() as folder:
        source, out = folder / "empty.raw", folder / "out"
        with open(source, "wb") as file:
            file.truncate(TiB)
        for format in chosen.format or FORMATS:
            every = commands(CONVERTERS, settings.bin, source, out, format)
            check = partial(verify, source, out, format)
            samples = alternate(floor | every, out, settings, check)
            about = {"format": format, "virtual_size": TiB}
            print(line(recorder.add(about, floor | every, samples)), flush=True)


if __name__ == "__main__":
    main()
