"""Plots of a model, each on axes of matplotlib's: in a notebook, and in the report.

The first six colours are of Okabe and Ito's, which the colour-blind can tell apart (Wong 2011, Nature Methods 8, 441);
shapes tell labels apart as well.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqssvae.diagnosis.latents import LatentUse
from seqssvae.errors import MissingPackageError
from seqssvae.recipes.calibration import Reliability

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6BB1", "#999933")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MOST_LABELS = 16
"""Most labels that have a colour and a shape of their own; the rest are grey."""
MOST_NAMED = 30
"""Most labels whose names stand at the sides of a confusion matrix."""
REST = "#8A8A8A"


class Term(NamedTuple):
    """What a curve shows.

    Args:
        name: The entry of the metrics, or of the record itself.
        title: Its title.
        unit: The unit of its axis.
    """

    name: str
    title: str
    unit: str


TERMS = (
    Term("elbo_per_symbol", "ELBO", "nats a symbol"),
    Term("accuracy", "Accuracy", "share of labelled rows"),
    Term("classification", "-log q(y|x)", "nats a labelled row"),
    Term("reconstruction", "log p(x|y,z)", "nats a row"),
    Term("kl_z", "KL of z", "nats a row"),
    Term("kl_y", "KL of y", "nats a row"),
    Term("label_entropy", "Entropy of q(y|x)", "nats a row"),
    Term("consistency", "Consistency", "nats an unlabelled row"),
    Term("distillation", "Distillation", "nats an unlabelled row"),
    Term("loss", "Loss", "as minimised"),
    Term("gradient_norm", "Gradient norm", "before clipping"),
    Term("learning_rate", "Learning rate", "step size"),
    Term("beta", "Beta", "weight of the KL of z"),
)
"""All curves, in their order."""


def new_axes(rows: int = 1, columns: int = 1, width: float = 4.0, height: float = 3.0) -> Any:
    """Axes of a new figure: one, or an array of them.

    Raises:
        MissingPackageError: If matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "Plots need matplotlib, which is not installed: pip install 'seqssvae[report]'."
        ) from error
    _, axes = pyplot.subplots(rows, columns, figsize=(width * columns, height * rows), layout="constrained")
    return axes


def terms_of(history: Sequence[Mapping[str, Any]]) -> list[Term]:
    """The terms that a training has, of which a curve can be drawn."""
    return [
        term for term in TERMS if any(value is not None for _, values in _curves(history, term) for value in values)
    ]


def plot_term(history: Sequence[Mapping[str, Any]], term: Term, axes: Any = None, kept: int | None = None) -> Any:
    """Plot one term over training steps.

    Args:
        history: The evaluations, as `Record.to_dict` returns them.
        term: Which.
        axes: Where to; None for a new figure.
        kept: The step whose weights were kept, which is marked; None for no mark.

    Returns:
        The axes.
    """
    axes = new_axes() if axes is None else axes
    steps = [record["step"] for record in history]
    for (name, values), colour, style in zip(_curves(history, term), COLOURS, ("-", "--"), strict=False):
        if any(value is not None for value in values):
            known = [np.nan if value is None else value for value in values]
            axes.plot(steps, known, style, marker=".", color=colour, label=name)
    if kept is not None and kept in steps:
        axes.axvline(kept, color=REST, linewidth=1, linestyle=":", label="kept")
    axes.set(title=term.title, xlabel="training step", ylabel=term.unit)
    axes.legend(fontsize="small")
    return axes


def plot_history(history: Sequence[Mapping[str, Any]], axes: Any = None, kept: int | None = None) -> Any:
    """Plot all terms of a training, one beside the other.

    Args:
        history: The evaluations, as `Record.to_dict` returns them.
        axes: An array of at least as many axes as there are terms; None for a new figure.
        kept: The step whose weights were kept.

    Returns:
        The array of axes.
    """
    terms = terms_of(history)
    columns = min(3, max(len(terms), 1))
    grid = new_axes(-(-max(len(terms), 1) // columns), columns) if axes is None else axes
    grid = np.atleast_1d(np.asarray(grid, object))
    for place in grid.flat[len(terms) :]:
        place.set_axis_off()
    for term, place in zip(terms, grid.flat, strict=False):
        plot_term(history, term, place, kept)
    return grid


def plot_confusion(confusion: Int[np.ndarray, "K K"], names: Sequence[str], axes: Any = None) -> Any:
    """Plot the share of each label's rows that are predicted to have each label.

    Args:
        confusion: The number of rows by label (first index) and predicted label (second).
        names: Names of the labels.
        axes: Where to; None for a new figure.

    Returns:
        The axes.
    """
    count = len(names)
    axes = (
        new_axes(width=max(4.0, min(9.0, 1.5 + 0.4 * count)), height=max(3.5, min(8.0, 1.2 + 0.35 * count)))
        if axes is None
        else axes
    )
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    axes.figure.colorbar(image, ax=axes, label="share of the label's rows")
    if count <= MOST_NAMED:
        shown = [_short(name) for name in names]
        turned = {"rotation": 60, "ha": "right"} if count > 4 else {}
        axes.set_xticks(range(count), shown, parse_math=False, **turned)
        axes.set_yticks(range(count), shown, parse_math=False)
    if count <= 12:
        for row, column in np.ndindex(*confusion.shape):
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center", fontsize="small",
                      color="black" if shares[row, column] > 0.5 else "white")  # fmt: skip
    axes.set(title="Confusion", xlabel="predicted label", ylabel="label")
    return axes


def plot_calibration(reliability: Reliability, error: float, axes: Any = None) -> Any:
    """Plot how often labels are right that are said to be so probable: on the diagonal, probabilities are honest.

    Args:
        reliability: Rows by how probable their most probable label is said to be.
        error: The expected calibration error.
        axes: Where to; None for a new figure.

    Returns:
        The axes.
    """
    axes = new_axes() if axes is None else axes
    known = reliability.rows > 0
    bins = (np.flatnonzero(known) + 0.5) / len(reliability.rows)
    axes.plot([0, 1], [0, 1], ":", color=REST, label="honest")
    axes.bar(bins, reliability.accuracy[known], width=0.9 / len(reliability.rows), color=COLOURS[4], label="right")
    axes.plot(reliability.confidence[known], reliability.accuracy[known], "o", color=COLOURS[0], label="said")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the most probable label", ylabel="share that is right")
    axes.set_title(f"Calibration (expected error {error:.3f})")
    axes.legend(fontsize="small", loc="upper left")
    return axes


def plot_units(latent: LatentUse, axes: Any = None) -> Any:
    """Plot the KL of each unit of z, the greatest first, active units apart from others.

    Args:
        latent: What z holds.
        axes: Where to; None for a new figure.

    Returns:
        The axes.
    """
    axes = new_axes() if axes is None else axes
    order = np.argsort(-latent.unit_kl, kind="stable")
    for active, colour, hatch in ((True, COLOURS[0], ""), (False, REST, "//")):
        chosen = np.flatnonzero(latent.active[order] == active)
        if len(chosen):
            label = "active" if active else "not active"
            axes.bar(chosen + 1, latent.unit_kl[order][chosen], color=colour, hatch=hatch, label=label)
    axes.set(title="KL of each unit of z", xlabel="unit, the greatest first", ylabel="nats a row")
    axes.legend(fontsize="small")
    return axes


def plot_embedding(
    embedding: Float[np.ndarray, "N Z"], y: Int[np.ndarray, " N"], names: Sequence[str], axes: Any = None
) -> Any:
    """Plot rows where their embeddings are, in two dimensions, by label.

    UMAP (McInnes et al. 2018) places them where the package `umap-learn` is installed, and principal components else.

    Args:
        embedding: The embeddings.
        y: Label ids, below 0 where they are missing.
        names: Names of the labels.
        axes: Where to; None for a new figure.

    Returns:
        The axes.
    """
    axes = new_axes(width=6, height=4.5) if axes is None else axes
    places, kind, labels = project(embedding)
    frequent = np.argsort(-np.bincount(y[y >= 0], minlength=len(names)), kind="stable")[:MOST_LABELS]
    rest = ~np.isin(y, frequent)
    if rest.any():
        axes.scatter(
            *places[rest].T,
            s=6,
            color=REST,
            marker=".",
            alpha=0.5,
            label="others" if (y >= 0)[rest].any() else "no label",
        )
    for place, label in enumerate(frequent):
        rows = y == label
        if rows.any():
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]
            axes.scatter(
                *places[rows].T, s=14, color=colour, marker=marker, alpha=0.8, linewidths=0, label=_short(names[label])
            )
    axes.set(title=f"Embedding ({kind})", xlabel=labels[0], ylabel=labels[1])
    legend = axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    for text in legend.get_texts():
        text.set_parse_math(False)
    return axes


def project(embedding: Float[np.ndarray, "N Z"]) -> tuple[Float[np.ndarray, "N 2"], str, tuple[str, str]]:
    """Places of rows in two dimensions, how they were found, and what their axes are."""
    try:
        from umap import UMAP
    except ImportError:
        return _principal(embedding)
    if len(embedding) < 10:
        return _principal(embedding)
    return UMAP(random_state=0).fit_transform(embedding), "UMAP", ("first coordinate", "second coordinate")


def _principal(embedding: Float[np.ndarray, "N Z"]) -> tuple[Float[np.ndarray, "N 2"], str, tuple[str, str]]:
    """Principal components, each with the sign that makes the greatest loading positive, as in both twins."""
    centred = embedding - embedding.mean(axis=0)
    _, sizes, directions = np.linalg.svd(np.asarray(centred, float), full_matrices=False)
    directions = (
        directions * np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)])[:, None]
    )
    places = np.zeros((len(centred), 2))
    count = min(2, len(directions))
    places[:, :count] = centred @ directions[:count].T
    shares = np.zeros(2)
    shares[:count] = (sizes**2 / max(float(np.sum(sizes**2)), 1e-300))[:count]
    first, second = (f"component {place + 1} ({share:.0%} of the variance)" for place, share in enumerate(shares))
    return places, "principal components", (first, second)


def _curves(history: Sequence[Mapping[str, Any]], term: Term) -> list[tuple[str, list[float | None]]]:
    """The curves of a term: in training and validation, or one that is neither."""
    if any(term.name in record for record in history):
        return [(term.title.lower(), [record.get(term.name) for record in history])]
    return [
        (kind, [(record.get(kind) or {}).get(term.name) for record in history]) for kind in ("training", "validation")
    ]


def _short(name: str, most: int = 18) -> str:
    """The name as it stands in a picture: not too long, and not with a first _, which matplotlib would leave out."""
    name = f"\u200b{name}" if name.startswith("_") else name
    return name if len(name) <= most else name[: most - 1] + "…"
