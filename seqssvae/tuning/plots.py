"""The plot of a sweep: how trials did, in their order and over each field that is searched."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqssvae.config import StoppingMetric
from seqssvae.report.plots import COLOURS, REST, new_axes
from seqssvae.runs.writing import explained, write_atomically
from seqssvae.tuning.results import Trial
from seqssvae.tuning.spaces import Choice, Space, Spaces
from seqssvae.tuning.study import GREATEST

COLUMNS = 3
WORST_SHOWN = 0.1
"""Of the values the worst share may lie outside of the plot, where they would leave the others no room."""


def write_plot(path: Path, trials: Sequence[Trial], best: Trial, spaces: Spaces, metric: StoppingMetric) -> None:
    """Write the plot as SVG.

    Args:
        path: The file.
        trials: The trials.
        best: The best of them.
        spaces: What is searched.
        metric: What trials are compared by.

    Raises:
        MissingPackageError: If matplotlib is not installed.
        RunError: If the file cannot be written.
    """
    count = 1 + len(spaces)
    columns = min(COLUMNS, count)
    axes = np.atleast_1d(new_axes(-(-count // columns), columns)).ravel()
    shown = [trial for trial in trials if trial.value is not None]
    _draw_history(axes[0], shown, metric)
    for one, (field, space) in zip(axes[1:], spaces.items(), strict=False):
        _draw_field(one, shown, best, field, space)
    for one in axes[:count]:
        one.set_ylabel(metric if metric != "elbo" else "ELBO a symbol")
        _limit(one, [trial.value for trial in shown if trial.value is not None], metric)
    for one in axes[count:]:
        one.remove()
    figure, buffer = axes[0].figure, io.BytesIO()
    from matplotlib import pyplot, rc_context

    with rc_context({"svg.hashsalt": "seqssvae"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    with explained(path):
        write_atomically(path, [buffer.getvalue()])


def _draw_history(axes: Any, trials: Sequence[Trial], metric: StoppingMetric) -> None:
    """Values in the order of the trials, and the best so far."""
    for state, colour, marker in (("complete", COLOURS[0], "o"), ("pruned", REST, "x")):
        some = [trial for trial in trials if trial.state == state]
        if some:
            axes.plot([t.number for t in some], [t.value for t in some], marker, color=colour, label=state)
    complete = [trial for trial in trials if trial.state == "complete"]
    accumulate = np.maximum.accumulate if metric in GREATEST else np.minimum.accumulate
    axes.step(
        [trial.number for trial in complete],
        accumulate([float(trial.value or 0.0) for trial in complete]),
        where="post",
        color=COLOURS[1],
        label="best so far",
    )
    axes.set_xlabel("trial")
    axes.legend(loc="lower right" if metric in GREATEST else "upper right", fontsize="small")


def _draw_field(axes: Any, trials: Sequence[Trial], best: Trial, field: str, space: Space) -> None:
    """Values over those of a field."""
    axes.set_xlabel(field)
    if isinstance(space, Choice):
        names = list(dict.fromkeys(str(trial.values.get(field)) for trial in trials))
        places = {name: float(place) for place, name in enumerate(names)}
        axes.set_xticks(list(places.values()), names)
    elif space.log:
        axes.set_xscale("log")
    for trial in trials:
        if field in trial.values:
            value = trial.values[field]
            x = places[str(value)] if isinstance(space, Choice) else value
            done = trial.state == "complete"
            axes.plot([x], [trial.value], "o" if done else "x", color=COLOURS[0] if done else REST)
            if trial.number == best.number:
                axes.plot([x], [trial.value], "o", color="none", markeredgecolor=COLOURS[5], markersize=11)


def _limit(axes: Any, values: Sequence[float], metric: StoppingMetric) -> None:
    """Leave the worst values out where the others would be one line."""
    low, high = (WORST_SHOWN, 1.0) if metric in GREATEST else (0.0, 1 - WORST_SHOWN)
    bottom, top = np.quantile(values, [low, high])
    if 0 < top - bottom < (max(values) - min(values)) / 5:
        axes.set_ylim(bottom - 0.1 * (top - bottom), top + 0.1 * (top - bottom))
