"""Workers in other processes: a process pool, and a Dask cluster."""

import os
import signal
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from imgconv.fleet.executors import LastingExecutor


def processes(count: int) -> ProcessPoolExecutor:
    """A pool whose processes share nothing with this one."""
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"))


def lasting(count: int) -> LastingExecutor:
    return LastingExecutor(partial(processes, count))


@contextmanager
def dask(count: int, folder: Path) -> Iterator[Executor]:
    """The executor of a real cluster of worker processes, one thread each."""
    with warnings.catch_warnings():  # what Dask makes of its own libraries is its affair
        warnings.simplefilter("ignore")
        from distributed import Client, LocalCluster

        with (
            LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                dashboard_address=None,
                local_directory=str(folder),
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client.get_executor()


def kill(worker: str) -> None:
    """Kill a process as a power cut would, by its name in a report."""
    os.kill(int(worker.rpartition(":")[2]), signal.SIGKILL)
