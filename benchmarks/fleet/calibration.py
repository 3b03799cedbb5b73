"""Real runs of one machine, and what the model makes of them."""

import random
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

from markdown import table

import imgconv
from fleet.jobs import SHARES
from fleet.model import Fleet, Pace, Pass
from imgconv.fleet.coordinate import Shares
from imgconv.units import GiB, MiB

_REAL = GiB  # of a disk, for a real run


def calibrate(folder: Path) -> str:
    """Distribute a real disk over one process, and see what the model makes of two.

    What a byte costs one worker in each pass is measured; that of two is the model's word.
    Where they share a machine they hold one another up, of which the model knows nothing.
    """
    rows = []
    with tempfile.TemporaryDirectory(dir=folder, prefix="imgconv-fleet-") as place:
        source = Path(place) / "disk.raw"
        chance = random.Random(1)
        with open(source, "wb") as file:
            for _ in range(_REAL // MiB):
                file.write(chance.randbytes(MiB))
        alone = _measured(source, 1)
        for workers in (1, 2):
            scan, send = alone if workers == 1 else _measured(source, workers)
            modelled = []
            for seconds, share in zip(
                alone, (SHARES.scan // 16, SHARES.send // 4), strict=True
            ):
                errands = [share] * (_REAL // share)
                fleet = Fleet(workers=workers, opening=0, coordinator=0)
                pace = Pace(seconds / _REAL, 0)
                modelled.append(Pass(fleet, pace, share, chance).run(errands).seconds)
            rows.append(
                (
                    f"{workers}",
                    *(f"{scan:.1f} s", f"{modelled[0]:.1f} s"),
                    *(f"{send:.1f} s", f"{modelled[1]:.1f} s"),
                )
            )
    head = "processes | scanning 1 GiB | in the model | sending | in the model"
    return table(head.split(" | "), rows)


def _measured(source: Path, workers: int) -> tuple[float, float]:
    """Seconds of scanning, and of sending into a folder, until the last part is there."""
    target = source.with_name("out.raw")
    began: dict[str, float] = {}
    ended = 0.0

    def watch(now: imgconv.Progress) -> None:
        nonlocal ended
        ended = time.monotonic()
        began.setdefault(now.phase, ended)

    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    with pool:
        wait([pool.submit(time.sleep, 1) for _ in range(workers)])  # until all are there
        imgconv.distribute(
            source,
            f"file://{target}",
            pool,
            options="raw",
            shares=Shares(scan=SHARES.scan // 16, send=SHARES.send // 4),
            progress=watch,
        )
    target.unlink()
    return began["emit"] - began["scan"], ended - began["emit"]
