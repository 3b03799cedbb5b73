"""One round of fuzzing: `python -m fuzz.guided TARGET SECONDS RUNS CORPUS`."""

import sys
from importlib import import_module
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["imgconv"]):
    from fuzz.targets import TARGETS, run_one
    from imgconv.sources import TABLE

    for place in TABLE.values():  # which would be loaded later, without instruments
        import_module(place.partition(":")[0])


def main() -> None:
    name, seconds, runs, corpus = sys.argv[1:]
    target, found = TARGETS[name], Path("build/fuzz") / name
    found.mkdir(parents=True, exist_ok=True)
    words = [f"-max_total_time={seconds}", f"-runs={runs}", "-max_len=70000", "-timeout=10"]
    words += ["-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={found}/"]
    run_one(target, target.made()[0])  # loads what is needed, which takes long
    atheris.Setup(["fuzz", *words, corpus], lambda content: run_one(target, content))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
