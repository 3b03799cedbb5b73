"""Workers in other processes: a process pool, and a Dask cluster."""

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from imgconv.fleet.executors import LastingExecutor
from imgconv.upload.handover import Sent


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


class Twice(Executor):
    """Has each errand carried out by two processes, and compares what they say of parts."""

    def __init__(self, pool: LastingExecutor):
        self._pool = pool
        self.compared = 0

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> "Future[Any]":  # type: ignore[override]
        first = self._pool.submit(function, *arguments).result()
        second = self._pool.submit(function, *arguments).result()
        if isinstance(first.result, Sent):
            assert set(first.take().parts) == set(second.take().parts)
            self.compared += 1
        done: Future[Any] = Future()
        done.set_result(second)
        return done
