"""The generative model and the inference model ("guide") as NumPyro programs."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import getitem
from typing import Any

import jax
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
from seqssvae.parameters import check_weights, feature_size, initial_weights, parameter_shapes
from seqssvae_jax.decoder import Decoder
from seqssvae_jax.distributions import DiagonalNormal, with_gradient_share
from seqssvae_jax.estimators import one_hot
from seqssvae_jax.modules import Classifier, Encoder, Encoding, LatentEncoder, Linear, Noise, SourceEncoder
from seqssvae_jax.products import Multiplies

Registered = Callable[[str, Any], Callable[..., Any]]
"""Makes of a network of that name what a program calls."""


def _as_it_is(name: str, network: Any) -> Callable[..., Any]:
    return network


class SSVAE(nnx.Module):
    """A semi-supervised variational autoencoder for sequences (Kingma et al. 2014, model M2, with a recurrent decoder).

        p(y) = Categorical(prior)    p(z) = N(0, I)    p(x|y,z) = prod_t Categorical(x_t | x_<t, y, z)
        q(y|x) = Categorical(classifier(x))            q(z|x,y) = N(loc(x, y), scale(x, y))

    Where sequences have a source that they are made from, all of these distributions are given the source as well:

        p(y|s) p(z|s,y) p(x|s,y,z)    q(y|s,x) q(z|s,x,y)

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
        source_vocabulary_size: V of the sources; 0 where there are none.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary_size: int,
        label_prior: Sequence[float],
        seed: int = 0,
        precision: Precision = "float32",
        source_vocabulary_size: int = 0,
    ) -> None:
        label_count = len(label_prior)
        has_source, features = source_vocabulary_size > 0, feature_size(config)
        encoded = features * (2 if has_source else 1)
        self.config = config
        self.vocabulary_size = vocabulary_size
        self.label_count = label_count
        self.precision = weight_type(precision)
        self.log_probabilities = tuple(float(value) for value in np.log(label_prior))
        self.encoder = Encoder(config, vocabulary_size)
        self.classifier = Classifier(encoded, label_count)
        self.latent_encoder = LatentEncoder(config, encoded, label_count)
        self.decoder = Decoder(config, vocabulary_size, label_count, has_source)
        self.has_source = has_source
        self.source_vocabulary_size = source_vocabulary_size
        if has_source:
            self.source_encoder = SourceEncoder(config, source_vocabulary_size)
            self.label_predictor = Linear(features, label_count)
            self.latent_predictor = LatentEncoder(config, features, label_count)
        for _, module in nnx.iter_modules(self):
            if isinstance(module, Multiplies):
                module.rounding = jnp.bfloat16 if precision == "bf16" else None
        sizes = config, vocabulary_size, label_count
        self.set_weights(initial_weights(*sizes, seed, self.precision, source_vocabulary_size))

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
        source: Int[Array, "B S"] | Encoding | None = None,
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
            source: Symbol ids of the sources, of a model that has them, or `encode_source` of them, if it is known.
        """
        decoder = nnx_module("decoder", self.decoder)
        encoding = self.encode_source(source, noise, nnx_module)
        with numpyro.plate("rows", len(x)):
            with handlers.mask(mask=row_mask):
                y = numpyro.sample("y", self.label_prior(encoding, nnx_module), obs=y)
                with handlers.scale(scale=beta):
                    z = numpyro.sample("z", self.latent_prior(encoding, self.one_hot(y), nnx_module))
            # Filler rows have no symbols, hence probability 1: x needs no mask.
            numpyro.sample("x", decoder(self.one_hot(y), z, x.shape[1], noise, weights, encoding), obs=x)

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
        source: Int[Array, "B S"] | Encoding | None = None,
    ) -> None:
        """q(y, z | x), or q(z | x, y) where y is observed.

        Arguments are those of `model`; `features` is `read(x, source)`, if it is known, and `label_gradient` the share
        of the gradient that reaches an enumerated q(y|x); `weights` are for the model.
        """
        classifier = nnx_module("classifier", self.classifier)
        latent_encoder = nnx_module("latent_encoder", self.latent_encoder)
        if features is None:
            features = self.read(x, source, noise, nnx_module)
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

    def encode_source(
        self, source: Array | Encoding | None, noise: Noise | None = None, module: Registered = _as_it_is
    ) -> Encoding | None:
        """What is made of the sources, once for model and guide; None of a model without.

        `module` is `nnx_module` within a program, which makes the weights known to it; so in the methods below.

        Raises:
            ValueError: If the model has sources and none are given, or the other way round.
        """
        if (source is not None) != self.has_source:
            raise ValueError(
                "the model has sources: give source." if self.has_source else "the model has no sources: give none."
            )
        if source is None or isinstance(source, Encoding):
            return source
        return module("source_encoder", self.source_encoder)(source, noise)

    def read(
        self,
        x: Int[Array, "B T"],
        source: Array | Encoding | None = None,
        noise: Noise | None = None,
        module: Registered = _as_it_is,
    ) -> tuple[Float[Array, "B F"], ...]:
        """Features of each row, for classifier and latent encoder: those of x, and of the source if there is one."""
        features = module("encoder", self.encoder)(x, noise)
        encoding = self.encode_source(source, noise, module)
        if encoding is None:
            return features
        return tuple(jnp.concatenate([of_tower, encoding.features], -1) for of_tower in features)

    def label_prior(self, source: Encoding | None = None, module: Registered = _as_it_is) -> dist.CategoricalLogits:
        """p(y), or p(y|source)."""
        if source is None:
            return dist.CategoricalLogits(self.log_prior)
        predicted = module("label_predictor", self.label_predictor)(source.features)
        return dist.CategoricalLogits(jax.nn.log_softmax(self.log_prior + predicted))

    def latent_prior(
        self,
        source: Encoding | None = None,
        y: Float[Array, "*#B L"] | None = None,
        module: Registered = _as_it_is,
    ) -> DiagonalNormal:
        """p(z), or p(z|source,y) of one-hot y."""
        if source is None or y is None:
            zeros = jnp.zeros(self.config.latent_size, self.precision)
            return DiagonalNormal(zeros, jnp.ones_like(zeros))
        return module("latent_predictor", self.latent_predictor)((source.features,), y)

    def one_hot(self, y: Array) -> Float[Array, "*B L"]:
        """One-hot vectors of label ids; vectors are left as they are."""
        return one_hot(y, self.label_count, self.precision)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight."""
        sizes = self.vocabulary_size, self.label_count, self.source_vocabulary_size
        return parameter_shapes(self.config, *sizes)

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
