"""The generative model and the inference model ("guide") as NumPyro programs."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.contrib.module import nnx_module

from seqssvae.config import ModelConfig, Precision, weight_type
from seqssvae.parameters import check_weights, initial_weights, parameter_shapes
from seqssvae_jax.distributions import with_gradient_share
from seqssvae_jax.estimators import one_hot
from seqssvae_jax.modules import Classifier, Decoder, Encoder, LatentEncoder, Noise
from seqssvae_jax.products import Multiplies


class SSVAE(nnx.Module):
    """A semi-supervised variational autoencoder for sequences (Kingma et al. 2014, model M2, with a recurrent decoder).

        p(y) = Categorical(prior)    p(z) = N(0, I)    p(x|y,z) = prod_t Categorical(x_t | x_<t, y, z)
        q(y|x) = Categorical(classifier(x))            q(z|x,y) = N(loc(x, y), scale(x, y))

    `model` and `guide` are NumPyro programs for batches whose label is observed (`y` given) or missing (`y` None, then
    enumerated in the guide, or chosen by an objective of `estimators`). They go with any NumPyro objective; a batch of
    both kinds is two calls.

    Args:
        config: The networks.
        vocabulary_size: V, special symbols included.
        label_prior: p(y), one probability per label.
        seed: Seed of the first weights, which are the same in both twins.
        precision: Floating-point type of weights and results; `float64` needs JAX's x64 mode; `bf16`: float32, and
            products of bfloat16 operands.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary_size: int,
        label_prior: Sequence[float],
        seed: int = 0,
        precision: Precision = "float32",
    ) -> None:
        label_count = len(label_prior)
        self.config = config
        self.vocabulary_size = vocabulary_size
        self.label_count = label_count
        self.precision = weight_type(precision)
        self.log_probabilities = tuple(float(value) for value in np.log(label_prior))
        self.encoder = Encoder(config, vocabulary_size)
        self.classifier = Classifier(config, label_count)
        self.latent_encoder = LatentEncoder(config, label_count)
        self.decoder = Decoder(config, vocabulary_size, label_count)
        for _, module in nnx.iter_modules(self):
            if isinstance(module, Multiplies):
                module.rounding = jnp.bfloat16 if precision == "bf16" else None
        self.set_weights(initial_weights(config, vocabulary_size, label_count, seed, self.precision))

    def model(
        self,
        x: Int[Array, "B T"],
        y: Int[Array, "B"] | None = None,
        row_mask: Bool[Array, "B"] | bool = True,
        beta: Float[Array, ""] | float = 1.0,
        noise: Noise | None = None,
        features: tuple[Array, ...] | None = None,
        label_gradient: float = 1.0,
        weights: Float[Array, "*B"] | None = None,
    ) -> None:
        """p(x, y, z).

        Args:
            x: Symbol ids, each row ending with END and then PAD.
            y: Label ids, or None where they are missing.
            row_mask: True for real rows, False for filler rows.
            beta: Weight of z's terms, above 0.
            noise: What is drawn at random, as in `seqssvae.noise`; without it NumPyro draws z and nothing is dropped.
            features: For the guide; unused here.
            label_gradient: For the guide; unused here.
            weights: By what the objective multiplies log p(x|y,z), if it is known: spares a product.
        """
        decoder = nnx_module("decoder", self.decoder)
        with numpyro.plate("rows", len(x)):
            with handlers.mask(mask=row_mask):
                y = numpyro.sample("y", self.label_prior(), obs=y)
                with handlers.scale(scale=beta):
                    z = numpyro.sample("z", self.latent_prior())
            # Filler rows have no symbols, hence probability 1: x needs no mask.
            numpyro.sample("x", decoder(self.one_hot(y), z, x.shape[1], noise, weights), obs=x)

    def guide(
        self,
        x: Int[Array, "B T"],
        y: Int[Array, "B"] | None = None,
        row_mask: Bool[Array, "B"] | bool = True,
        beta: Float[Array, ""] | float = 1.0,
        noise: Noise | None = None,
        features: tuple[Array, ...] | None = None,
        label_gradient: float = 1.0,
        weights: Float[Array, "*B"] | None = None,
    ) -> None:
        """q(y, z | x), or q(z | x, y) where y is observed.

        Arguments are those of `model`; `features` is `encoder(x)`, if it is known, and `label_gradient` the share of
        the gradient that reaches an enumerated q(y|x); `weights` are for the model.
        """
        encoder = nnx_module("encoder", self.encoder)
        classifier = nnx_module("classifier", self.classifier)
        latent_encoder = nnx_module("latent_encoder", self.latent_encoder)
        if features is None:
            features = encoder(x, noise)
        with numpyro.plate("rows", len(x)), handlers.mask(mask=row_mask):
            if y is None:
                q_y = with_gradient_share(classifier(features), label_gradient)
                y = numpyro.sample("y", q_y, infer={"enumerate": "parallel"})
            with handlers.scale(scale=beta):
                numpyro.sample("z", latent_encoder(features, self.one_hot(y), noise))

    @property
    def log_prior(self) -> Float[Array, "K"]:
        """log p(y)."""
        return jnp.array(self.log_probabilities, self.precision)

    def label_prior(self) -> dist.CategoricalLogits:
        """p(y)."""
        return dist.CategoricalLogits(self.log_prior)

    def latent_prior(self) -> dist.Distribution:
        """p(z)."""
        zeros = jnp.zeros(self.config.latent_size, self.precision)
        return dist.Normal(zeros, jnp.ones_like(zeros)).to_event(1)

    def one_hot(self, y: Array) -> Float[Array, "*B L"]:
        """One-hot vectors of label ids; vectors are left as they are."""
        return one_hot(y, self.label_count, self.precision)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight."""
        return parameter_shapes(self.config, self.vocabulary_size, self.label_count)

    def parameters(self) -> dict[str, Array]:
        """All weights by name, in the order of `seqssvae.parameters`: what an optimiser of one's own would move."""
        flat = nnx.to_pure_dict(nnx.state(self, nnx.Param))
        return {name: _entry(flat, name) for name in self.shapes}

    def bind(self, parameters: Mapping[str, Array]) -> "SSVAE":
        """The same model with these weights, for use inside a transformation."""
        graph, state = nnx.split(self, nnx.Param)
        nested: dict = {}
        for name, value in parameters.items():
            *path, last = _path(name)
            place = nested
            for part in path:
                place = place.setdefault(part, {})
            place[last] = value
        nnx.replace_by_pure_dict(state, nested)
        return nnx.merge(graph, state)

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Copy weights in, named and laid out as in `seqssvae.parameters`.

        Raises:
            ValueError: On a missing or unknown name, or a wrong shape.
        """
        check_weights(weights, self.shapes)
        parameters = {name: jnp.array(weights[name], self.precision) for name in self.shapes}
        nnx.update(self, nnx.state(self.bind(parameters), nnx.Param))

    def get_weights(self) -> dict[str, np.ndarray]:
        """Copies of all weights, in the order of `seqssvae.parameters`."""
        return {name: np.array(value) for name, value in self.parameters().items()}


def _path(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in name.split(".")]


def _entry(nested: Any, name: str) -> Array:
    return reduce(getitem, _path(name), nested)
