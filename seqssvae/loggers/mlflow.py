"""MLflow."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from seqssvae.config import Config
from seqssvae.config.settings import to_dict
from seqssvae.loggers.logger import Logger, package

MOST_CHARACTERS, MOST_PARAMETERS = 500, 100
"""What MLflow takes of a parameter's value, and of parameters at once."""


class MLflowLogger(Logger):
    """Sends metrics to MLflow: to the run that is active, or to a new one.

    Server, experiment and the like are what `mlflow.start_run` takes from the environment: `MLFLOW_TRACKING_URI`,
    `MLFLOW_EXPERIMENT_NAME`.

    Args:
        run_name: Name of a new run; None for one that MLflow makes up.

    Raises:
        MissingPackageError: If the package `mlflow` is not installed.

    References:
        Limits: https://mlflow.org/docs/latest/rest-api.html, Log Batch.
    """

    name = "mlflow"

    def __init__(self, run_name: str | None = None) -> None:
        super().__init__()
        self.run_name = run_name
        self._is_ours = False
        package(self.name)

    def open(self, config: Config, step: int) -> None:
        """Begin a run if none is active, and send the fields of the configuration that it does not have yet."""
        mlflow = package(self.name)
        active = mlflow.active_run()
        self._is_ours = active is None
        run = mlflow.start_run(run_name=self.run_name) if active is None else active
        known = run.data.params  # a parameter cannot change
        fields = iter([(name, value) for name, value in _flat(to_dict(config)) if name not in known])
        while some := dict(islice(fields, MOST_PARAMETERS)):
            mlflow.log_params(some)

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Send the metrics of an evaluation."""
        package(self.name).log_metrics(scalars, step=step)

    def close(self, error: BaseException | None) -> None:
        """End the run that was begun, as failed or killed where an exception ended training."""
        if self._is_ours:
            status = "FINISHED" if error is None else "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            package(self.name).end_run(status)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The fields by full name, such as `model.encoder.layers`."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)[:MOST_CHARACTERS]
