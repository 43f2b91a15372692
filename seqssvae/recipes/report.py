"""What a user should know of a training that begins or has ended, in sentences."""

import math

import numpy as np

from seqssvae.backend import NO_LABEL
from seqssvae.config import Config
from seqssvae.data.corpus import Corpus
from seqssvae.data.prepare import Prepared
from seqssvae.inference.likelihood import corpus_likelihood
from seqssvae.parameters import parameter_shapes
from seqssvae.recipes.auto import Fitted
from seqssvae.recipes.baselines import Baselines
from seqssvae.training.state import FitResult

MOST_NAMED = 12
"""Most labels whose rows are counted in a sentence."""
MOST_COMPARED = 200
"""Most validation rows on which the generator is compared with simple models where its ELBO is worse."""


def training_summary(config: Config, prepared: Prepared, backend: str, device: str | None) -> str:
    """What is about to be trained on which rows: counts, symbols, parameters, twin and device."""
    schema, training = prepared.schema, prepared.training
    labels = np.asarray(training.y)
    names = schema.labels.names
    counts = np.bincount(labels[labels != NO_LABEL], minlength=len(names))
    of_each = ", ".join(f"{name} {count}" for name, count in list(zip(names, counts, strict=True))[:MOST_NAMED])
    of_each += f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    dimensions = schema.dimensions
    sizes = dimensions.vocabulary_size, len(names), dimensions.source_vocabulary_size
    parameters = sum(math.prod(shape) for shape in parameter_shapes(config.model, *sizes).values())
    return (
        f"{len(training)} training rows, {counts.sum()} of them labelled ({of_each}), and {len(prepared.validation)} "
        f"validation rows; {len(schema.vocabulary.symbols)} symbols; a network of {parameters} parameters, by "
        f"{backend} on {device or 'its default device'}."
    )


def kept_sentence(result: FitResult, config: Config) -> str:
    """Which weights were kept, what decided, and why training stopped."""
    state, training = result.state, config.training
    record = result.best or (result.records[-1] if result.records else None)
    stopped = "its steps or epochs were used up"
    if training.patience and state.waited >= training.patience:
        stopped = f"{training.metric} had not become better for {state.waited} evaluations"
    kept = f"The weights of step {state.best_step} were kept; training stopped at step {state.step}, since {stopped}."
    if record is None or record.validation is None:
        return f"{kept} No validation rows decided."
    if state.best is None:
        return f"{kept} No evaluation decided: that was before step {training.min_steps} (training.min_steps)."
    rows, labelled = record.validation.rows, record.validation.labelled_rows
    decided = rows if training.metric in ("elbo", "loss") else labelled
    return f"{kept} What decided was {training.metric} over {decided} validation rows, {labelled} of them labelled."


def generator_warning(fitted: Fitted, validation: Corpus, baselines: Baselines) -> str | None:
    """A sentence where the generator is worse than simple models of the symbols; None where it is not.

    The ELBO decides where it is better than these. Where it is not, q(y|x) may be the reason, and the generator is
    judged by a bound that knows the best q(y|x), on some rows if there are many.

    Args:
        fitted: What training left.
        validation: The validation rows.
        baselines: Simple models of the training rows' symbols.
    """
    result, config = fitted.result, fitted.config
    record = result.best or (result.records[-1] if result.records else None)
    if record is None or record.validation is None or record.validation.elbo_per_symbol is None:
        return None
    others = baselines.nats_per_symbol(validation.sequences)
    if record.validation.elbo_per_symbol >= max(others.values()):
        return None
    rows = validation
    if len(rows) > MOST_COMPARED:
        drawn = np.random.default_rng(config.training.seed).choice(len(rows), MOST_COMPARED, replace=False)
        rows = rows.take(np.sort(drawn))
        others = baselines.nats_per_symbol(rows.sequences)
    log_p = corpus_likelihood(fitted.backend, rows, config, config.training.seed, particles=1).log_p
    ours = float(log_p.sum() / rows.lengths.sum())
    better = [f"{name}s ({value:.3f})" for name, value in others.items() if value > ours]
    if not better:
        return None
    return (
        f"The generator's bound, {ours:.3f} nats a symbol of validation rows, is worse than that of "
        f"{' and of '.join(better)}: train longer before you generate with it."
    )
