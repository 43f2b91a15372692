"""Both sides of the comparison in both frameworks, behind one method: a step on rows with or without labels."""

import time
from typing import Any

import numpy as np

from benchmarks.sizes import Sizes
from seqssvae.backend import Batch, Dimensions, TrainingStep, get_backend
from seqssvae.config import (
    Conditioning,
    Config,
    DecoderConfig,
    EncoderConfig,
    GradientEstimatorName,
    ModelConfig,
    ObjectiveConfig,
    Precision,
    TrainingConfig,
)
from seqssvae.data.vocabulary import PAD


def model_config(sizes: Sizes, conditioning: Conditioning = "every_step") -> ModelConfig:
    """Our networks, of these sizes."""
    return ModelConfig(
        latent_size=sizes.latent,
        encoder=EncoderConfig(embedding_size=sizes.embedding, hidden_size=sizes.hidden),
        decoder=DecoderConfig(embedding_size=sizes.embedding, hidden_size=sizes.hidden, conditioning=conditioning),
    )


class Ours:
    """One of our twins."""

    def __init__(
        self,
        twin: str,
        sizes: Sizes,
        conditioning: Conditioning,
        precision: Precision,
        estimator: GradientEstimatorName = "enumerate",
        k: int = 4,
    ) -> None:
        config = Config(
            model=model_config(sizes, conditioning),
            objective=ObjectiveConfig(gradient_estimator=estimator, k=k),
            training=TrainingConfig(precision=precision),
        )
        self.backend = get_backend(twin)(config, Dimensions(sizes.vocabulary, (1 / sizes.labels,) * sizes.labels))
        self.steps = 0

    def step(self, x: np.ndarray, y: np.ndarray | None) -> None:
        """One step of the optimiser."""
        labels = np.full(len(x), -1, np.int32) if y is None else y
        batch = Batch(x, labels, np.asarray(x.any(1)), np.arange(len(x), dtype=np.int32))
        labelled, unlabelled = (None, batch) if y is None else (batch, None)
        self.steps += 1
        step = TrainingStep(labelled, unlabelled, beta=1.0, learning_rate=1e-3, step=self.steps)
        float(self.backend.train([step])[0].loss)


class TorchRecipe:
    """The recipe in Pyro."""

    def __init__(self, sizes: Sizes, enumerate: str) -> None:
        from benchmarks.peers.recipe_torch import RecipeTrainer

        self.trainer = RecipeTrainer(sizes, enumerate)

    def step(self, x: np.ndarray, y: np.ndarray | None) -> None:
        """One step of the optimiser."""
        import torch

        rows = torch.from_numpy(x).long()
        if y is None:
            self.trainer.step(rows)
        else:
            self.trainer.labelled_step(rows, torch.from_numpy(y).long())


class JaxRecipe:
    """The recipe in NumPyro."""

    def __init__(self, sizes: Sizes) -> None:
        from benchmarks.peers.recipe_jax import RecipeTrainer

        self.trainer = RecipeTrainer(sizes)

    def step(self, x: np.ndarray, y: np.ndarray | None) -> None:
        """One step of the optimiser."""
        if y is None:
            self.trainer.step(x)
        else:
            self.trainer.labelled_step(x, y)


def build(
    twin: str,
    side: str,
    sizes: Sizes,
    conditioning: Conditioning = "every_step",
    precision: Precision = "float32",
    enumerate: str = "parallel",
    estimator: GradientEstimatorName = "enumerate",
    k: int = 4,
) -> Any:
    """A side with a model of these sizes."""
    if side == "ours":
        return Ours(twin, sizes, conditioning, precision, estimator, k)
    return TorchRecipe(sizes, enumerate) if twin == "torch" else JaxRecipe(sizes)


def random_rows(sizes: Sizes, seed: int = 0) -> np.ndarray:
    """Rows of full length."""
    x = np.random.default_rng(seed).integers(4, sizes.vocabulary, (sizes.rows, sizes.steps)).astype(np.int32)
    x[:, -1] = 3
    return x


def padded(rows: list[np.ndarray], length: int | None = None) -> np.ndarray:
    """Rows padded to the longest, or to a length."""
    x = np.full((len(rows), length or max(map(len, rows))), PAD, np.int32)
    for place, row in enumerate(rows):
        x[place, : len(row)] = row
    return x


def product_rate(twin: str, rows: int, inner: int, columns: int, seconds: float = 0.15) -> float:
    """Floating-point operations per second of `(M, I) @ (I, N)`: the best of what layouts there are."""
    rates = []
    for order in range(2):
        run = (_torch_product if twin == "torch" else _jax_product)(rows, inner, columns, order)
        run()
        times: list[float] = []
        while sum(times) < seconds or len(times) < 3:
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        rates.append(2 * rows * inner * columns / float(np.median(times)))
    return max(rates)


def _torch_product(rows: int, inner: int, columns: int, order: int) -> Any:
    import torch

    left, right = torch.randn(rows, inner), torch.randn(inner, columns)
    if order:
        right = right.t().contiguous().t()
    out = torch.empty(rows, columns)
    return lambda: torch.mm(left, right, out=out)


def _jax_product(rows: int, inner: int, columns: int, order: int) -> Any:
    import jax

    left, right = (jax.numpy.ones(shape) for shape in ((rows, inner), (columns, inner) if order else (inner, columns)))
    product = jax.jit(lambda a, b: jax.lax.dot_general(a, b, (((1,), (1 if order else 0,)), ((), ()))))
    return lambda: product(left, right).block_until_ready()
