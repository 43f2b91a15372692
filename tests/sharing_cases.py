"""Steps of one twin that two devices share, and the same on one, in processes of their own: writes what came of them.

    python tests/sharing_cases.py torch|jax FOLDER NUMBER_OF_CASES

PyTorch has a process for each device and JAX one for both; each does all cases, so that they start once.
"""

import dataclasses
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np

from seqssvae.backend import NO_LABEL, Backend, Batch, Dimensions, GivenRows, TrainingStep, get_backend
from seqssvae.config import (
    Config,
    ConsistencyConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    TrainingConfig,
)
from seqssvae.data.vocabulary import END, PAD
from seqssvae.noise import draw_noise, noise_specs
from seqssvae.training.totals import pack_totals

MODEL = ModelConfig(
    latent_size=2,
    dropout=0.2,
    word_dropout=0.1,
    encoder=EncoderConfig(embedding_size=3, hidden_size=4, word_dropout=0.1),
    decoder=DecoderConfig(3, 4, conditioning="every_step"),
)
ALIGNED = ConsistencyConfig(weight=2.0, steps=0, aligned=True, realigned=True)
OBJECTIVES = {
    "enumerate": ObjectiveConfig(alpha=3.0, batching="joint", consistency=ALIGNED),
    "top_k": ObjectiveConfig(gradient_estimator="top_k", k=0, rest_mass=0.4),
    "score_function": ObjectiveConfig(gradient_estimator="score_function"),
}
PLACES = {
    "torch": {"2 and 1": [0, 1, 2], "3 and 0": [0, 2, 4]},  # every second row is one process's
    "jax": {"2 and 1": [0, 1, 3], "3 and 0": [0, 1, 2]},  # the first half is one device's
}
"""Where labelled rows are in a batch of six, such that the devices have so many."""
DIMENSIONS = Dimensions(8, (0.5, 0.3, 0.2))


def batch_of(places: list[int], size: int, labelled: bool, seed: int) -> Batch:
    """Rows at these places of a batch, and filler rows at the others."""
    generator = np.random.default_rng(seed)
    x, y, row_mask = np.full((size, 6), PAD, np.int32), np.full(size, NO_LABEL, np.int32), np.zeros(size, bool)
    for place in places:
        length = generator.integers(1, 6)
        x[place, :length], x[place, length] = generator.integers(4, 8, length), END
        y[place] = generator.integers(3) if labelled else NO_LABEL
        row_mask[place] = True
    return Batch(x, y, row_mask, np.where(row_mask, np.arange(size), -1).astype(np.int32))


def given(config: Config, batch: Batch, labels: int | None) -> GivenRows:
    """A batch with noise."""
    specs = noise_specs(config.model, labels, *batch.x.shape, objective=config.objective)
    return GivenRows(batch, draw_noise(specs, np.random.default_rng(9)))


@cache
def untrained(twin: str, name: str, devices: int, steps: int) -> tuple[Config, Backend]:
    """A twin of first weights for all cases that take so many steps, so that it is compiled once."""
    config = Config(model=MODEL, objective=OBJECTIVES[name], training=TrainingConfig(precision="float64"))
    return config, get_backend(twin)(config, DIMENSIONS, **({} if devices == 1 else {"devices": devices}))


def results_of(twin: str, name: str, spread: str, devices: int, steps: int = 3) -> dict[str, np.ndarray]:
    """What so many steps of a case report and leave, or with none what loss, gradient and an evaluation are."""
    config, backend = untrained(twin, name, devices, steps)
    labelled = batch_of(PLACES[twin][spread], 6, True, seed=1)
    unlabelled = batch_of([0, 1, 2, 3], 5, False, seed=2)
    if not steps:
        derivatives = backend.differentiate(given(config, labelled, None), given(config, unlabelled, 3), 0.7)
        arrays = {"loss": derivatives.loss, **{f"gradient {key}": of for key, of in derivatives.gradients.items()}}
        evaluation = backend.evaluate(unlabelled, 4)
        all_terms = {
            "labelled": derivatives.labelled,
            "unlabelled": derivatives.unlabelled,
            "held out": evaluation.terms,
        }
        for kind, terms in all_terms.items():
            arrays |= {f"{kind} {key}": term for key, term in terms._asdict().items()}
        return {**arrays, "held out log q(y|x)": evaluation.log_q_y}
    step = TrainingStep(labelled, unlabelled, 0.7, 0.01, 0)
    totals = backend.train([dataclasses.replace(step, step=number) for number in range(steps)])
    arrays = {f"weight {key}": of for key, of in backend.get_weights().items()}
    arrays |= {f"state {key}": of for key, of in backend.get_optimizer_state().items()}
    arrays |= {f"total {key}": values for key, values in pack_totals(totals).items()}
    flags = [np.concatenate([np.asarray(of_batch) for of_batch in of_step.finite]) for of_step in totals]
    return {**arrays, "finite": np.stack(flags)}


CASES = [
    ("enumerate", "2 and 1", 0),
    ("enumerate", "3 and 0", 0),
    ("score_function", "2 and 1", 3),
    ("enumerate", "2 and 1", 3),
    ("top_k", "2 and 1", 1),
]
"""Objectives, how labelled rows are spread, and how many steps are taken; the first three are done at every change."""


def write_all(twin: str, folder: Path, most: int, is_first: bool = True) -> None:
    """Write what both find, and what two devices find of which each takes the other to have as much as itself."""
    objectives = import_module(f"seqssvae_{twin}.objectives")
    for number, case in enumerate(CASES[:most]):
        for devices in (1, 2):
            arrays = results_of(twin, *case[:2], devices, case[2])
            if is_first:
                np.savez(folder / f"{number} {devices}.npz", **arrays)
    objectives.total = lambda value: 2 * value
    untrained.cache_clear()
    arrays = results_of(twin, *CASES[0][:2], 2, 0)
    if is_first:
        np.savez(folder / "mean of means.npz", **arrays)


def one_of_two(rank: int, folder: Path, most: int) -> None:
    """What one process of PyTorch's does."""
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    write_all("torch", folder, most, rank == 0)
    torch.distributed.destroy_process_group()


def main() -> None:
    """Do the first cases of a twin."""
    twin, folder, most = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if twin == "torch":
        import torch

        torch.multiprocessing.spawn(one_of_two, (folder, most), nprocs=2)
    else:
        import jax

        jax.config.update("jax_num_cpu_devices", 2)
        write_all("jax", folder, most)


if __name__ == "__main__":
    main()
