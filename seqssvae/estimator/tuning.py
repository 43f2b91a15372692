"""`tune`: a sweep over fields of an estimator's configuration."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from seqssvae.config.settings import to_dict
from seqssvae.estimator.fitted import Sequences
from seqssvae.estimator.sequence_ssvae import SequenceSSVAE
from seqssvae.runs.usable import usable_backend
from seqssvae.training.progress import progress
from seqssvae.tuning.results import Trial, Tuned, describe
from seqssvae.tuning.spaces import parse_spaces
from seqssvae.tuning.sweep import SweepOptions, check_recipe, sweep
from seqssvae.tuning.trials import Rows, Trials


def tune(
    model: SequenceSSVAE,
    X: Sequences,
    y: Iterable[Any] | None = None,
    *,
    space: Mapping[str, Any],
    output: str | Path,
    groups: Iterable[Any] | None = None,
    source: Sequences | None = None,
    verbose: int = 0,
    **options: Any,
) -> Tuned:
    """Search fields of the configuration for what does best on validation rows, which are held out from X.

    Every trial is on file once it has ended. Called again with the same arguments, a sweep that was stopped goes on.

    Args:
        model: An estimator whose recipe is not `auto`; its hyperparameters are those that are not searched. It is not
            fitted.
        X: Sequences: texts, or lists of symbols.
        y: Label of each, or the marker of a missing one.
        space: By full name of a field, what is tried: a text such as `log 1e-4 1e-2`, or a list of values.
        output: The output directory: a new one, or that of the sweep to go on with.
        groups: Group of each; no group is both trained on and held out.
        source: The sequence that each is made from, if there is one.
        verbose: 1 (or True) to show on stderr how trials go.
        options: The fields of `seqssvae.tuning.sweep.SweepOptions`, such as `trials=50` and `keep_run=True`.

    Returns:
        What was found: `SequenceSSVAE(recipe=tuned.recipe, config=tuned.config)` has the best configuration.

    Raises:
        ConfigurationError: If a space, an option or a hyperparameter is wrong; before anything is trained.
        DataError: If the rows cannot be used.
        UserError: If no trial could be trained to its end.

    Example:
        >>> model = SequenceSSVAE(recipe="ssvae", epochs=20, metric="accuracy")
        >>> space = {"optimizer.learning_rate": "log 1e-3 1e-1", "model.cell": ["gru", "lstm"]}
        >>> tuned = tune(model, sequences, labels, space=space, output="sweep", trials=20)  # doctest: +SKIP
    """
    check_recipe(model.recipe)
    spaces, chosen = parse_spaces(space, "space: "), SweepOptions(**options)
    config = model._config()
    given = model._read(config, X, y, groups, source)
    own = to_dict(given.config)
    backend = model.backend or usable_backend()
    model._check_device()
    with progress("trial", quiet=not verbose) as shown:
        trials = Trials(own, model.recipe, spaces, Rows(given.prepare), backend, model._build_backend, [shown])
        metric = given.config.training.metric

        def report(trial: Trial, best: Trial | None, done: int) -> None:
            if verbose:
                print(f"seqssvae: {done} of {chosen.trials}: {describe(trial, best, metric)}", file=sys.stderr)

        tuned = sweep(output, trials, chosen, report)
    best = tuned.config
    return replace(tuned, config=replace(best, data=replace(best.data, labels=config.data.labels)))
