"""Items that are made in a thread before they are asked for."""

import threading
import time

import pytest

from seqssvae.training.prefetch import prefetch


def alive() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "seqssvae-prefetch"]


def wait_until_none_is_alive() -> None:
    for thread in alive():
        thread.join(5)
    assert not alive()


def test_items_come_in_order_and_the_thread_ends():
    assert list(prefetch(iter(range(100)))) == list(range(100))
    wait_until_none_is_alive()


def test_items_are_made_before_they_are_asked_for_but_not_all():
    made = []
    made_two = threading.Event()

    def make():
        for item in range(50):
            made.append(item)
            if item == 2:
                made_two.set()
            yield item

    items = prefetch(make(), depth=2)
    assert next(items) == 0
    assert made_two.wait(5)
    time.sleep(0.05)
    assert len(made) <= 5  # one given, two ready, one waiting to be put down
    items.close()
    wait_until_none_is_alive()


def test_an_exception_is_raised_where_its_item_would_have_been():
    def make():
        yield 1
        raise ValueError("no more")

    items = prefetch(make())
    assert next(items) == 1
    with pytest.raises(ValueError, match="no more"):
        next(items)
    wait_until_none_is_alive()


def test_nothing_is_made_of_what_is_never_asked_for():
    items = prefetch(iter([1]))
    items.close()
    assert not alive()
