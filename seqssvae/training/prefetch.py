"""Items that are made in a thread of their own while earlier ones are used, as a data loader's worker does."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """Iterate over items in their order, at most `depth` of which are made before they are asked for.

    An exception in making an item is raised where the item would have been returned. The thread starts when the first
    item is asked for, and ends when the iterator is exhausted, closed or no longer referred to.

    Args:
        items: What to iterate over.
        depth: Most items that lie ready.
    """
    ready: queue.Queue[Any] = queue.Queue(depth)
    closed = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None, bool]) -> bool:
        while not closed.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put((item, None, False)):
                    return
        except BaseException as error:
            put((None, error, True))
        else:
            put((None, None, True))

    def consume() -> Generator[Item, None, None]:
        thread = threading.Thread(target=produce, name="seqssvae-prefetch", daemon=True)
        thread.start()
        try:
            while True:
                item, error, is_last = ready.get()
                if error is not None:
                    raise error
                if is_last:
                    return
                yield item
        finally:
            closed.set()

    return consume()
