"""What TensorBoard makes of event files; a test that needs it is skipped where TensorBoard is not installed."""

from pathlib import Path

import pytest

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(folder: Path) -> event_accumulator.EventAccumulator:
    """What TensorBoard makes of a directory."""
    return event_accumulator.EventAccumulator(str(folder)).Reload()


def series(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]
