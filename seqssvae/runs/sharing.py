"""What processes that train together must agree on."""

from dataclasses import replace

from seqssvae.config import Config
from seqssvae.config.settings import to_yaml
from seqssvae.data.prepare import Prepared
from seqssvae.runs.files import corpus_digest
from seqssvae.training.processes import Processes
from seqssvae.training.state import TrainingState


def check_same_training(
    processes: Processes, config: Config, prepared: Prepared, state: TrainingState | None = None
) -> None:
    """Check that all processes are about to train the same; their files may have other names.

    Args:
        processes: The processes, all of which call this.
        config: The configuration.
        prepared: The rows.
        state: What this one goes on from; None from the start.

    Raises:
        ConfigurationError: If they are not.
    """
    if processes.count == 1:
        return
    fields = replace(config, data=replace(config.data, train="", validation=None))
    rows = corpus_digest(prepared.training) + corpus_digest(prepared.validation)
    step = "0" if state is None else str(state.step)
    what = {"configuration": to_yaml(fields), "rows": rows, "checkpoint to go on from": step}
    processes.check_same({name: content.encode() for name, content in what.items()})
