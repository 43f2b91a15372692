"""The one training loop, used by both twins.

Training is a function of the configuration, the rows and the seed: the streams of batches depend on (seed, epoch), the
noise on (seed, step), beta and the learning rate on the step. `TrainingState` is therefore all that is needed to go on
from where it was taken as if training had never stopped, bit for bit.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from seqssvae.backend import Backend, TrainingStep, Weights
from seqssvae.config import Config, TrainingConfig
from seqssvae.data.batches import EvaluationBatches
from seqssvae.data.corpus import Corpus
from seqssvae.errors import ConfigurationError, NonFiniteError
from seqssvae.inference.evaluate import CorpusEvaluation, evaluate
from seqssvae.inference.metrics import Metrics, training_metrics
from seqssvae.training.divergence import StepReports, check_weights_finite, diverged
from seqssvae.training.prefetch import prefetch
from seqssvae.training.state import FitResult, Observer, Record, Score, TrainingState
from seqssvae.training.step_order import Chunk, ScheduledStep, StepOrder

CHUNK = 64
"""Most training steps handed to the backend at once. They are counted from the last evaluation, so that a resumed run
has the same chunks."""


def fit(
    config: Config,
    training: Corpus,
    validation: Corpus,
    backend: Backend,
    observers: Sequence[Observer] = (),
    resume: TrainingState | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Train a model until the epochs or steps are used up, or until the metric has not improved for some evaluations.

    The best evaluation is the one with the best `training.metric`; between equal accuracies the one with the lower
    classification loss, though such a tie does not count as an improvement for `training.patience`. Its weights are
    kept, or with `training.standard_errors` those of another evaluation that is no more than that below it: the one
    with the best ELBO where labels decide and there is a generator, else the last. Without validation rows, and before
    `training.min_steps`, the last weights are kept, and patience plays no part.

    Args:
        config: The run's configuration.
        training: Rows to learn from.
        validation: Rows that decide what is best and when to stop; it may be empty.
        backend: A freshly built model; it ends with the weights that were kept.
        observers: Their methods are called as training goes on.
        resume: State to go on from, of a run with the same configuration and rows (`epochs`, `max_steps`,
            `min_steps` and `patience` may be other, and so may `optimizer.schedule_steps`; if that is 0, the schedule
            keeps its length).
        interrupted: Asked every now and then whether training is to stop; if so, observers are given the state.

    Raises:
        ConfigurationError: If these rows cannot serve the objective or the metric, or there are more steps than the
            learning rate's schedule is long; before anything is trained.
        KeyboardInterrupt: If training was interrupted.
        UserError: If a value is no longer finite; observers have seen the last good state.
    """
    _check_rows(config, training, validation)
    order = StepOrder(config, training, 0 if resume is None else resume.schedule_steps)
    size, symbols = config.training.batch_size, config.training.batch_symbols
    validation_batches = EvaluationBatches(validation, size, order.buckets, symbols)

    def validate() -> CorpusEvaluation | None:
        """Evaluate the validation rows, every time with the same noise."""
        if not len(validation):
            return None
        return evaluate(backend, validation, config, config.training.seed, batches=validation_batches)

    if resume is None:
        weights = backend.get_weights()
        state = TrainingState(weights=weights, best_weights=weights, optimizer=backend.get_optimizer_state())
    else:
        state = resume
        backend.set_weights(state.weights)
        backend.set_optimizer_state(state.optimizer)
    state = replace(state, schedule_steps=order.schedule_steps)
    began = time.perf_counter() - state.seconds
    records: list[Record] = []
    best: Record | None = None
    chunks_of_steps = order.chunks(CHUNK, state.step, state.epoch, state.epoch_step)
    chunks = prefetch(_loaded(chunk, backend) for chunk in chunks_of_steps)

    def announce(text: str) -> None:
        for observer in observers:
            observer.waiting(text)

    backend.announce_to(announce)
    try:
        for observer in observers:
            observer.configured(config)
        if (note := price_of_settings(config.training, backend.platform)) is not None:
            for observer in observers:
                observer.noted(note)
        for observer in observers:
            observer.started(order.total_steps, state)
        keeper = _Keeper(config, backend, observers, interrupted)
        while not _exhausted(state, config):
            reports = StepReports(training, config.training.on_nonfinite, state.step, state.totals)
            if (last := _train(backend, chunks, state, reports, keeper, began)) is None:
                break
            totals = reports.totals_at_evaluation()
            weights, step = backend.get_weights(), last.step.step + 1
            check_weights_finite(weights, step, state.step)
            try:
                evaluation = validate()
            except NonFiniteError as error:
                raise diverged(f"in validation after step {step} {error}", state.step) from error
            loss = None if evaluation is None else evaluation.metrics.loss
            if loss is not None and not math.isfinite(loss):
                raise diverged(f"the validation loss is {loss} after step {step}", state.step)
            record = _record(config, last, totals, evaluation, began)
            state = _next_state(state, record, last, config, weights, backend.get_optimizer_state())
            records.append(record)
            best = record if state.best_step == record.step else best
            for observer in observers:
                observer.evaluated(record, state)
            keeper.evaluated()
        backend.set_weights(state.best_weights)
    except BaseException as error:
        for observer in observers:
            observer.failed(error)
        raise
    finally:
        chunks.close()
        for observer in observers:
            observer.finished(state)
    return FitResult(state, records, best)


def price_of_settings(training: TrainingConfig, platform: str) -> str | None:
    """Return what settings cost on an accelerator, as a sentence with the fields that change it; None for nothing."""
    if platform == "cpu":
        return None
    slower = [
        text
        for costs, text in (
            (training.deterministic and platform == "gpu", "sums in one order (training.deterministic: false for any)"),
            (
                training.precision != "float64" and training.matmul_precision == "highest",
                "products of float32 as they are (training.matmul_precision: high for rounded ones)",
            ),
        )
        if costs
    ]
    return f"on this {platform.upper()} these take time: {' and '.join(slower)}." if slower else None


def _loaded(chunk: Chunk, backend: Backend) -> Chunk:
    """The chunk with steps that the backend has begun to copy to its device."""
    return chunk._replace(steps=[step._replace(step=backend.load(step.step)) for step in chunk.steps])


def _check_rows(config: Config, training: Corpus, validation: Corpus) -> None:
    metric, objective = config.training.metric, config.objective.name
    if not len(training):
        raise ConfigurationError(f"There is no row to train on in {training.origin}.")
    if objective == "classifier" and not np.any(training.y >= 0):
        raise ConfigurationError(f"objective.name: classifier needs labelled rows, and {training.origin} has none.")
    if objective == "classifier" and metric == "elbo":
        raise ConfigurationError("training.metric: elbo does not go with objective.name: classifier, which has none.")
    if config.objective.posterior == "given" and training.posterior is None and np.any(training.y < 0):
        raise ConfigurationError(
            f"objective.posterior: given needs a posterior of each row, and {training.origin} has none: "
            "give it by Corpus.with_posterior."
        )
    needs_labels = metric in ("accuracy", "classification") or (objective == "classifier" and metric == "loss")
    if len(validation) and needs_labels and not np.any(validation.y >= 0):
        raise ConfigurationError(
            f"training.metric: {metric} needs labelled validation rows, and there are none: "
            "give some, or set training.metric: elbo."
        )


def _exhausted(state: TrainingState, config: Config) -> bool:
    return bool(config.training.patience) and state.waited >= config.training.patience


class _Keeper:
    """Has the state between evaluations kept: every so many minutes, and where training is interrupted."""

    def __init__(
        self, config: Config, backend: Backend, observers: Sequence[Observer], interrupted: Callable[[], bool]
    ) -> None:
        self.backend, self.observers, self.interrupted = backend, observers, interrupted
        self._minutes, self._kept = config.training.checkpoint_minutes, time.perf_counter()

    def evaluated(self) -> None:
        """Note that observers have just seen the state."""
        self._kept = time.perf_counter()
        if self.interrupted():
            raise KeyboardInterrupt

    def advanced(self, state: TrainingState, last: ScheduledStep, reports: StepReports, began: float) -> None:
        """Keep the state between two evaluations if it is time to."""
        now, interrupted = time.perf_counter(), self.interrupted()
        if interrupted or (self._minutes and now - self._kept >= 60 * self._minutes):
            midway = self._state(state, last, reports.totals(), now - began)
            for observer in self.observers:
                observer.checkpointed(midway)
            self._kept = time.perf_counter()
        if interrupted:
            raise KeyboardInterrupt

    def _state(self, state: TrainingState, last: ScheduledStep, totals: Weights, seconds: float) -> TrainingState:
        """The state after the steps that have been taken since the last evaluation."""
        weights = self.backend.get_weights()
        step = last.step.step + 1
        if state.best is None:  # nothing is known to be better
            state = replace(state, best_step=step, best_weights=weights)
        return replace(
            state,
            step=step,
            epoch=last.epoch,
            epoch_step=last.epoch_step,
            seconds=seconds,
            weights=weights,
            optimizer=self.backend.get_optimizer_state(),
            totals=totals,
        )


def _train(
    backend: Backend,
    chunks: Iterator[Chunk],
    state: TrainingState,
    reports: StepReports,
    keeper: _Keeper,
    began: float,
) -> ScheduledStep | None:
    """Take the steps up to the next evaluation, and return the last of them; None if there are none."""
    for chunk in chunks:
        steps = [scheduled.step for scheduled in chunk.steps]
        reports.add(steps, backend.train(steps))
        last = chunk.steps[-1]
        for observer in keeper.observers:
            observer.advanced(last.step.step + 1, last.epoch + 1, sum(map(_row_count, steps)))
        if chunk.ends_segment:
            return last
        keeper.advanced(state, last, reports, began)
    return None


def _row_count(step: TrainingStep) -> int:
    return sum(int(batch.row_mask.sum()) for batch in (step.labelled, step.unlabelled) if batch is not None)


def _record(
    config: Config, last: ScheduledStep, totals: Weights, evaluation: CorpusEvaluation | None, began: float
) -> Record:
    step, validation = last.step, None if evaluation is None else evaluation.metrics
    return Record(
        step=step.step + 1,
        epoch=last.epoch + 1,
        seconds=time.perf_counter() - began,
        beta=step.beta,
        learning_rate=step.learning_rate,
        gradient_norm=float(np.mean(totals["gradient_norm"])),
        training=training_metrics(totals, config.objective),
        validation=validation,
        standard_error=None if evaluation is None else evaluation.standard_error,
    )


def _score(validation: Metrics | None, config: Config) -> Score | None:
    """The score of an evaluation; None without validation rows."""
    if validation is None:
        return None
    metric = config.training.metric
    value: float = getattr(validation, "elbo_per_symbol" if metric == "elbo" else metric)
    if metric == "accuracy":
        return value, -(validation.classification or 0.0)
    return (value if metric == "elbo" else -value), 0.0


def _kept(score: Score | None, record: Record, config: Config) -> Score | None:
    """What `TrainingState.kept` is if this evaluation's weights are kept."""
    if score is None or record.validation is None:
        return None
    elbo, by_labels = record.validation.elbo_per_symbol, config.training.metric in ("accuracy", "classification")
    return score[0], float(record.step) if elbo is None or not by_labels else elbo


def _next_state(
    state: TrainingState, record: Record, last: ScheduledStep, config: Config, weights: Weights, optimizer: Weights
) -> TrainingState:
    decides = record.step >= config.training.min_steps
    score, error = _score(record.validation, config) if decides else None, record.standard_error or 0.0
    kept = _kept(score, record, config)
    state = replace(
        state,
        step=record.step,
        epoch=last.epoch,
        epoch_step=last.epoch_step,
        evaluations=state.evaluations + 1,
        seconds=record.seconds,
        weights=weights,
        optimizer=optimizer,
        totals={},
    )
    if score is None or kept is None or state.best is None:
        state = replace(state, best=score, best_error=error, waited=0)
        return replace(state, best_step=record.step, best_weights=weights, kept=kept)
    waited = 0 if score[0] > state.best[0] else state.waited + 1
    is_best, allowed = score > state.best, config.training.standard_errors
    best, best_error = (score, error) if is_best else (state.best, state.best_error)
    least = best[0] - allowed * best_error
    outdone = state.kept is None or state.kept[0] < least or state.kept[1] < kept[1]
    if score[0] >= least and outdone if allowed else is_best:
        state = replace(state, best_step=record.step, best_weights=weights, kept=kept)
    state = replace(state, best=best, best_error=best_error)
    return replace(state, waited=waited)
