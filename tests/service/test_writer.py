"""The thread that writes."""

import threading
import time
from functools import partial

import pytest

from bench.service.writer import Writer


def test_everything_is_done_in_order_and_by_another_thread_when_it_is_left():
    done: list[int] = []
    threads: set[int] = set()

    def act(number: int) -> None:
        threads.add(threading.get_ident())
        done.append(number)

    with Writer() as writer:
        for number in range(200):
            writer.do(partial(act, number))
    assert done == list(range(200))
    assert len(threads - {threading.get_ident()}) == len(threads) == 1


def test_who_gives_goes_on_at_once_until_too_much_is_left():
    free, given = threading.Event(), []

    def give() -> None:
        for number in range(5):
            writer.do(lambda: given.append(-1) if not free.wait(60) else None)
            given.append(number)

    with Writer(most=3) as writer:
        thread = threading.Thread(target=give)
        thread.start()
        deadline = time.monotonic() + 60
        while len(given) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert given == [0, 1, 2]
        writer.wait(0.01)
        assert not free.is_set(), "it waits for so long and no longer"
        free.set()
        thread.join(60)
        writer.wait()
        assert given == [0, 1, 2, 3, 4]


def test_what_something_raises_is_raised_where_the_next_thing_is_given():
    done = []
    with Writer() as writer:
        writer.do(lambda: done.append(1 // 0))
        writer.do(lambda: done.append(2))
        writer.wait()
        with pytest.raises(ZeroDivisionError):
            writer.do(lambda: done.append(3))
    assert done == [2], "what was given before is done"


def test_what_holds_much_waits_for_what_was_given_before_and_is_done_however_much_it_is():
    free, given = threading.Event(), []

    def give() -> None:
        for size in (1000, 6, 4, 1):
            writer.do(lambda: None if free.wait(60) else given.append(-1), size)
            given.append(size)

    with Writer(most_bytes=10) as writer:
        thread = threading.Thread(target=give)
        thread.start()
        deadline = time.monotonic() + 60
        while not given and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert given == [1000]
        free.set()
        thread.join(60)
        assert given == [1000, 6, 4, 1]
