"""How exports grow to a fleet: the tables of docs/fleet.md, from a small simulation.

    python benchmarks/fleet_simulation.py              # prints the tables
    python benchmarks/fleet_simulation.py --write      # puts them into docs/fleet.md
    python benchmarks/fleet_simulation.py --calibrate /dev/shm  # real runs beside it

Errands, parts, requests and layouts are those of imgconv itself, made by its own code for
disks that need not exist. Everything else is an assumption, has a name in `Fleet` and
`Prices`, and can be replaced: fleet_simulation.py --set worker_in=400e6 --set store=2.5e9.
The same numbers give the same tables, on any machine.
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from fleet.calibration import calibrate
from fleet.model import Fleet, Prices
from fleet.tables import report
from markdown import put

DOCUMENT = Path(__file__).parent.parent / "docs" / "fleet.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--write", action="store_true", help="put the tables into docs/fleet.md"
    )
    parser.add_argument(
        "--calibrate", metavar="FOLDER", type=Path, help="2 GiB are needed there"
    )
    parser.add_argument(
        "--set",
        metavar="NAME=NUMBER",
        action="append",
        default=[],
        dest="changes",
        help="another assumption, a field of Fleet or of Prices",
    )
    arguments = parser.parse_args()
    if arguments.calibrate is not None:
        print(calibrate(arguments.calibrate))
        return
    fleet, prices = _assumed(arguments.changes)
    tables = report(fleet, prices)
    if arguments.write:
        put(tables, DOCUMENT, "fleet_simulation")
    else:
        print(tables)


def _assumed(changes: Sequence[str]) -> tuple[Fleet, Prices]:
    fleet, prices = Fleet(), Prices()
    for name, _, number in (change.partition("=") for change in changes):
        if name in {field.name for field in fields(Fleet)}:
            kind = type(getattr(fleet, name))
            fleet = replace(fleet, **{name: kind(float(number))})
        elif name in {field.name for field in fields(Prices)}:
            prices = replace(prices, **{name: float(number)})
        else:
            raise SystemExit(f"--set {name}: there is no such assumption")
    return fleet, prices


if __name__ == "__main__":
    main()
