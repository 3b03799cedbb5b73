"""Errands: repeated when a worker is lost, not when they fail."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.workers import lasting

from imgconv.errors import ReadFailed, WorkersLost
from imgconv.fleet.dispatch import IN_FLIGHT, Dispatcher, Errand
from imgconv.fleet.executors import LastingExecutor
from imgconv.workers import Stop


@dataclass(frozen=True)
class Count:
    """Returns its number."""

    number: int

    def run(self) -> int:
        return self.number


@dataclass(frozen=True)
class Die:
    """Ends its process, as long as there are files in a folder to delete."""

    folder: str

    def run(self) -> str:
        for name in os.listdir(self.folder):
            os.unlink(os.path.join(self.folder, name))
            os._exit(1)
        return "alive"


class Unsendable(Exception):
    def __init__(self, one: int, two: int):
        super().__init__(f"{one} and {two}")


@dataclass(frozen=True)
class Fail:
    """Raises."""

    typed: bool

    def run(self) -> int:
        if self.typed:
            raise ReadFailed("disk", 512, "Input/output error")
        raise Unsendable(1, 2)


def same(errand: Errand[int]) -> Errand[int]:
    return errand


@pytest.fixture(scope="module")
def pool() -> Iterator[LastingExecutor]:
    with lasting(1) as executor:
        yield executor


def test_all_results_come_with_their_numbers() -> None:
    count = 2 * IN_FLIGHT + 3
    with ThreadPoolExecutor(4) as executor:
        dispatcher = Dispatcher(executor, Stop(), lambda: None)
        found = dict(dispatcher.results(map(Count, range(count)), same))
    assert found == {i: i for i in range(count)}
    assert len(dispatcher.workers) == 1


def test_an_errand_is_repeated_when_its_worker_dies(
    tmp_path: Path, pool: LastingExecutor
) -> None:
    for i in range(3):
        (tmp_path / str(i)).touch()
    dispatcher = Dispatcher(pool, Stop(), lambda: None)
    renewed = []
    found = dispatcher.results([Die(str(tmp_path))], lambda e: renewed.append(e) or e)
    assert list(found) == [(0, "alive")]
    assert len(renewed) == 3


def test_an_errand_that_kills_every_worker_is_given_up(
    tmp_path: Path, pool: LastingExecutor
) -> None:
    for i in range(50):
        (tmp_path / str(i)).touch()
    dispatcher = Dispatcher(pool, Stop(), lambda: None)
    with pytest.raises(WorkersLost, match="BrokenProcessPool"):
        list(dispatcher.results([Die(str(tmp_path))], lambda errand: errand))
    assert len(os.listdir(tmp_path)) == 44  # five more tries after the first


def test_an_errand_that_fails_is_not_repeated(pool: LastingExecutor) -> None:
    dispatcher = Dispatcher(pool, Stop(), lambda: None)
    with pytest.raises(ReadFailed, match="cannot read at offset 512") as caught:
        list(dispatcher.results([Fail(True)], same))
    assert caught.value.__notes__[0].startswith("on worker ")


def test_an_error_that_cannot_be_pickled_comes_as_text(pool: LastingExecutor) -> None:
    dispatcher = Dispatcher(pool, Stop(), lambda: None)
    with pytest.raises(RuntimeError, match="Unsendable: 1 and 2"):
        list(dispatcher.results([Fail(False)], same))


def test_an_executor_that_is_shut_down_is_an_error() -> None:
    with ThreadPoolExecutor() as executor:
        pass
    with pytest.raises(WorkersLost, match="cannot schedule"):
        list(Dispatcher(executor, Stop(), lambda: None).results([Count(1)], same))
