"""Order, first error, cancellation, and that every thread is joined."""

import threading
import time

import pytest

from imgconv.errors import Cancelled
from imgconv.workers import Pool, Stop, Turn, run


def threads_of_ours() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("imgconv-")]


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_turns_come_in_task_order(threads: int) -> None:
    seen = []

    def work(task: int, turn: Turn) -> None:
        time.sleep((task * 7 % 5) / 2000)
        with turn:
            seen.append(task)

    run(range(60), lambda: work, threads=threads, stop=Stop())
    assert seen == list(range(60))
    assert threads_of_ours() == []


def test_a_task_may_do_without_its_turn() -> None:
    seen = []

    def work(task: int, turn: Turn) -> None:
        if task % 3:
            with turn:
                seen.append(task)

    run(range(30), lambda: work, threads=4, stop=Stop())
    assert seen == [n for n in range(30) if n % 3]


@pytest.mark.parametrize("where", ["before", "in", "after"])
@pytest.mark.parametrize("threads", [1, 4])
def test_the_first_error_is_raised_and_stops_the_rest(threads: int, where: str) -> None:
    done = []

    def work(task: int, turn: Turn) -> None:
        if task == 5 and where == "before":
            raise ValueError("task 5")
        with turn:
            if task == 5 and where == "in":
                raise ValueError("task 5")
        if task == 5 and where == "after":
            raise ValueError("task 5")
        done.append(task)

    stop = Stop()
    with pytest.raises(ValueError, match="task 5"):
        run(range(10_000), lambda: work, threads=threads, stop=stop)
    assert stop.is_set()
    assert len(done) < 10_000
    assert threads_of_ours() == []


def test_an_error_in_the_task_list_is_raised() -> None:
    def tasks() -> object:
        yield 1
        raise OSError("walk failed")

    with pytest.raises(OSError, match="walk failed"):
        run(tasks(), lambda: lambda task, turn: None, threads=3, stop=Stop())


def test_an_error_while_a_worker_starts_is_raised() -> None:
    def make_worker() -> object:
        raise MemoryError("no buffer")

    with pytest.raises(MemoryError, match="no buffer"):
        run(range(5), make_worker, threads=2, stop=Stop())


def test_the_caller_can_cancel() -> None:
    count = 0

    def work(task: int, turn: Turn) -> None:
        nonlocal count
        with turn:
            count += 1

    with pytest.raises(Cancelled):
        run(range(10**9), lambda: work, threads=2, stop=Stop(lambda: count >= 20))
    assert 20 <= count < 100
    assert threads_of_ours() == []


def test_cancelling_frees_those_who_wait_for_their_turn() -> None:
    began, cancel = threading.Event(), threading.Event()

    def work(task: int, turn: Turn) -> None:
        if task == 0:
            began.wait(10)
            cancel.set()
            while not stop.is_set():
                time.sleep(0.01)
            return
        began.set()
        with turn:
            raise AssertionError("task 0 has not had its turn")

    stop = Stop(cancel.is_set)
    with pytest.raises(Cancelled):
        run(range(4), lambda: work, threads=4, stop=stop)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_pool_whose_task_raised_can_be_closed() -> None:
    began = threading.Event()

    def task() -> None:
        began.set()
        raise ValueError("nobody hears of it")

    pool = Pool(1, "imgconv-pool")
    pool.submit(task)
    assert began.wait(10)
    assert pool.close(10)
    for thread in threads_of_ours():
        thread.join()
