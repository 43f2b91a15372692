"""Items made in a thread of their own while earlier ones are used."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """The same items, at most `depth` of which lie ready before they are asked for.

    An exception in making one is raised where it would have been returned. The thread ends when the iterator is
    exhausted, closed or no longer referred to.
    """
    ready: queue.Queue[Any] = queue.Queue(depth)
    left = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None, bool]) -> bool:
        while not left.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((item, None, False)):
                    return
        except BaseException as error:
            put((None, error, True))
        else:
            put((None, None, True))

    def take() -> Generator[Item, None, None]:
        thread = threading.Thread(target=make, name="seqssvae-ahead", daemon=True)
        thread.start()
        try:
            while True:
                item, error, ends = ready.get()
                if error is not None:
                    raise error
                if ends:
                    return
                yield item
        finally:
            left.set()

    return take()
