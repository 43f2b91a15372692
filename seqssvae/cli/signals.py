"""What the command line does when a signal asks it to stop."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """The process was told to end by SIGTERM."""


@contextmanager
def terminable() -> Iterator[None]:
    """Have SIGTERM raise `Terminated`, as Ctrl-C raises KeyboardInterrupt, so that what was begun is tidied away.

    A process that another one of this program has started ends at once, as that one expects.
    """
    multiprocessing = sys.modules.get("multiprocessing")  # which a process that it has started has loaded
    is_child = multiprocessing is not None and multiprocessing.parent_process() is not None
    is_main = threading.current_thread() is threading.main_thread()
    if is_child or not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def noted_signals() -> Iterator[Callable[[], bool]]:
    """Note SIGINT and SIGTERM in place of stopping at once; a second one stops at once.

    Yields:
        What tells whether there was one.

    Raises:
        Terminated: In place of KeyboardInterrupt, if the signal was SIGTERM.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise _interruption(number)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield lambda: bool(received)
    except KeyboardInterrupt as error:
        raise (_interruption(received[0]) if received else error) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interruption(number: int) -> KeyboardInterrupt:
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
