"""Concurrency and rate: never more than allowed, less when throttled, more again later."""

import threading
from time import sleep

import pytest

from imgconv.errors import Cancelled
from imgconv.upload.window import RateLimit, Window


def never() -> None:
    pass


def test_never_more_than_the_limit() -> None:
    window = Window(3, never)
    active, seen, lock = 0, [], threading.Lock()

    def work() -> None:
        nonlocal active
        for _ in range(20):
            with window:
                with lock:
                    active += 1
                    seen.append(active)
                sleep(0.001)
                with lock:
                    active -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(seen) == 3


def test_throttling_halves_it_and_success_brings_it_back() -> None:
    window = Window(8, never)
    window.throttled()
    assert window.limit == 4
    for _ in range(5):
        window.throttled()
    assert window.limit == 1
    for _ in range(8):
        window.succeeded()
    assert window.limit == 2
    for _ in range(1000):
        window.succeeded()
    assert window.limit == 8


def test_waiting_ends_when_there_is_no_point() -> None:
    def check() -> None:
        raise Cancelled("no point")

    window = Window(1, check)
    with window, pytest.raises(Cancelled), window:
        pass


def test_the_rate_is_kept_on_average() -> None:
    waits: list[float] = []
    rate = RateLimit(1000, waits.append)
    for _ in range(10):
        rate(500)
    # The first goes at once, each of the others after the ones before it.
    assert waits[0] == 0
    assert waits[-1] == pytest.approx(4.5, abs=0.5)
