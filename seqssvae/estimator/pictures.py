"""Pictures of a fitted estimator, for notebooks. matplotlib is needed: `pip install 'seqssvae[report]'`."""

import html
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from seqssvae.data.corpus import Corpus
from seqssvae.errors import DataError, MissingPackageError
from seqssvae.estimator.fitted import FittedMixin, FittedModel, Sequences
from seqssvae.inference.evaluate import count_confusion, encode
from seqssvae.recipes.calibration import expected_calibration_error, reliability
from seqssvae.recipes.names import PredictionMethod
from seqssvae.recipes.predictors import predict_log_proba
from seqssvae.report import plots
from seqssvae.report.svg import RECIPE, to_svg


class PicturesMixin(FittedMixin):
    """Mixin of an estimator that shows what it learned."""

    def plot_history(self) -> np.ndarray:
        """Plot every term over training; return the axes, one for each term."""
        fitted = self._get_fitted()
        return plots.plot_history(_history(fitted), kept=fitted.checkpoint.state.best_step)

    def plot_embedding(
        self,
        X: Sequences,
        y: Iterable[Any] | None = None,
        source: Sequences | None = None,
        features: bool = False,
        ax: Any = None,
    ) -> Any:
        """Plot sequences where their embeddings are, in two dimensions; return the axes.

        Args:
            X: Sequences: texts, or lists of symbols.
            y: Label of each, or the marker of a missing one, for its colour.
            source: The source of each, if the estimator was fitted with sources.
            features: Whether it is the features that q(y|x) reads, in place of the mean of z.
            ax: Axes of matplotlib's; None for a new figure.
        """
        fitted = self._get_fitted()
        rows = fitted.encode(X, source)
        embedding = np.asarray(encode(fitted.backend, rows, fitted.config, features), float)
        return plots.plot_embedding(embedding, self._label_indices(y, len(rows)), self._label_names(), ax)

    def plot_confusion(
        self,
        X: Sequences,
        y: Iterable[Any],
        source: Sequences | None = None,
        method: PredictionMethod | None = None,
        ax: Any = None,
    ) -> Any:
        """Plot which labels are taken for which; return the axes.

        Args:
            X: Sequences: texts, or lists of symbols.
            y: Label of each, or the marker of a missing one.
            source: The source of each, if the estimator was fitted with sources.
            method: As of `predict_proba`.
            ax: Axes of matplotlib's; None for a new figure.

        Raises:
            DataError: If no sequence has a label.
        """
        log_p, labels = self._predicted(X, y, source, method)
        return plots.plot_confusion(count_confusion(labels, log_p), self._label_names(), ax)

    def plot_calibration(
        self,
        X: Sequences,
        y: Iterable[Any],
        source: Sequences | None = None,
        method: PredictionMethod | None = None,
        ax: Any = None,
    ) -> Any:
        """Plot how often labels are right that are said to be so probable; return the axes.

        Arguments and errors are those of `plot_confusion`; give sequences that the estimator was not fitted with.
        """
        log_p, labels = self._predicted(X, y, source, method)
        return plots.plot_calibration(reliability(log_p, labels), expected_calibration_error(log_p, labels), ax)

    def _predicted(
        self, X: Sequences, y: Iterable[Any], source: Sequences | None, method: PredictionMethod | None
    ) -> tuple[Float[np.ndarray, "M K"], Int[np.ndarray, " M"]]:
        """log p(y|x) and labels of the sequences that have one."""
        fitted = self._get_fitted()
        rows: Corpus = fitted.encode(X, source)
        labels = self._label_indices(y, len(rows))
        known = np.flatnonzero(labels >= 0)
        if not len(known):
            raise DataError("y has no label to compare the predictions with.")
        log_p = predict_log_proba(fitted, rows.take(known), method)
        return log_p, labels[known]

    def _repr_html_(self) -> str:
        """What a notebook shows: parameters, and the curves of a fitted estimator where matplotlib is installed."""
        head = f"<pre>{html.escape(repr(self))}</pre>"
        if not hasattr(self, "fitted_"):
            return head
        fitted = self.fitted_
        state, names = fitted.checkpoint.state, self._label_names()
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        facts = f"fitted by {fitted.backend.name}, step {state.best_step} of {state.step}; labels: {shown}"
        return f"{head}<p>{html.escape(facts)}</p>{self._curves()}"

    def _curves(self) -> str:
        history = _history(self.fitted_)
        if not history:
            return ""
        try:
            import matplotlib

            with matplotlib.rc_context(RECIPE):
                axes = plots.plot_history(history, kept=self.fitted_.checkpoint.state.best_step)
            return to_svg(axes.flat[0].figure, f"history{id(self)}", "Training", "Every term over training steps.")
        except (ImportError, MissingPackageError):
            return ""

    def _label_names(self) -> list[str]:
        return [str(label) for label in self.classes_.tolist()]


def _history(fitted: FittedModel) -> list[dict[str, Any]]:
    return [json.loads(line) for line in fitted.checkpoint.history]
