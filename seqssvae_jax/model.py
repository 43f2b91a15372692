"""The generative model and the inference model ("guide") as NumPyro programs."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from flax import nnx
from jax import Array
from jaxtyping import Float, Int
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.primitives import _PYRO_STACK

from seqssvae.config import ModelConfig, Precision, weight_type
from seqssvae.parameters import (
    check_weights,
    feature_size,
    initial_weights,
    parameter_shapes,
    source_feature_size,
)
from seqssvae_jax.decoder import Decoder
from seqssvae_jax.distributions import DiagonalNormal, one_hot
from seqssvae_jax.modules import (
    Classifier,
    Encoder,
    Encoding,
    LatentEncoder,
    Linear,
    Noise,
    SourceEncoder,
    real_rows,
    symbols_of,
)


class SSVAE(nnx.Module):
    """A semi-supervised variational autoencoder for sequences (Kingma et al. 2014, model M2, with a recurrent decoder).

        p(y) = Categorical(prior)    p(z) = N(0, I)    p(x|y,z) = prod_t Categorical(x_t | x_<t, y, z)
        q(y|x) = Categorical(classifier(x))            q(z|x,y) = N(loc(x, y), scale(x, y))

    Where sequences have a source that they are made from, all of these distributions are given the source as well:

        p(y|s) p(z|s,y) p(x|s,y,z)    q(y|s,x) q(z|s,x,y)

    `model` and `guide` are NumPyro programs for batches whose label is observed (`y` given) or missing (`y` None, then
    enumerated in the guide, or chosen by an objective of `gradient_estimators`). They go with any NumPyro objective; a
    batch of both kinds is two calls.

    Args:
        config: The networks.
        vocabulary_size: V, special symbols included.
        label_prior: p(y), one probability per label.
        seed: Seed of the first weights, which are the same in both twins.
        precision: Floating-point type of weights and results; `float64` needs JAX's x64 mode. `bf16` means float32
            weights; the products of a run are rounded by its backend, or by `seqssvae_jax.ops.rounded_products`.
        source_vocabulary_size: V of the sources; 0 where there are none.
        name: Name of the parameter that a program has, a dictionary of all weights: `bind(params[name])` is the model
            with those that NumPyro's `SVI` found.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary_size: int,
        label_prior: Sequence[float],
        seed: int = 0,
        precision: Precision = "float32",
        source_vocabulary_size: int = 0,
        name: str = "ssvae",
    ) -> None:
        label_count, features = len(label_prior), source_feature_size(config)
        self.config, self.name, self.label_count = config, name, label_count
        self.has_source = source_vocabulary_size > 0
        encoded = feature_size(config) + (features if self.has_source else 0)
        self.encoder = Encoder(config, vocabulary_size)
        self.classifier = Classifier(encoded, label_count)
        self.latent_encoder = LatentEncoder(config, encoded, label_count)
        self.decoder = Decoder(config, vocabulary_size, label_count, self.has_source)
        if self.has_source:
            self.source_encoder = SourceEncoder(config, source_vocabulary_size)
            self.label_predictor = Linear(features, label_count)
            self.latent_predictor = LatentEncoder(config, features, label_count)
        self.sizes = config, vocabulary_size, label_count
        self.source_vocabulary_size = source_vocabulary_size
        self.precision = weight_type(precision)
        self.log_probabilities = tuple(float(value) for value in np.log(label_prior))
        self.set_weights(initial_weights(*self.sizes, seed, self.precision, source_vocabulary_size))

    def model(
        self,
        x: Int[Array, "B T"] | Encoding,
        y: Int[Array, " B"] | None = None,
        source: Int[Array, "B S"] | Encoding | None = None,
        beta: Float[Array, ""] | float = 1.0,
        noise: Noise | None = None,
    ) -> None:
        """p(x, y, z).

        Args:
            x: Symbol ids, each row ending with END and then PAD; or `encode` of them. Rows of PAD alone weigh nothing.
            y: Label ids, or None where they are missing.
            source: Symbol ids of the sources, of a model that has them; or `encode_source` of them.
            beta: Weight of z's terms, above 0.
            noise: What is drawn at random, as in `seqssvae.noise`; without it NumPyro draws z and nothing is dropped.
        """
        ssvae, x = self.registered(), symbols_of(x)
        source = ssvae.encode_source(source, noise)
        with numpyro.plate("rows", len(x)):
            with handlers.mask(mask=real_rows(x)):
                y = ssvae.one_hot(numpyro.sample("y", ssvae.label_prior(source), obs=y))
                with handlers.scale(scale=beta):
                    z = numpyro.sample("z", ssvae.latent_prior(source, y))
            numpyro.sample("x", ssvae.decoder(y, z, x.shape[1], source, noise), obs=x)  # of filler rows it is 1

    def guide(
        self,
        x: Int[Array, "B T"] | Encoding,
        y: Int[Array, " B"] | None = None,
        source: Int[Array, "B S"] | Encoding | None = None,
        beta: Float[Array, ""] | float = 1.0,
        noise: Noise | None = None,
    ) -> None:
        """q(y, z | x), or q(z | x, y) where y is observed. Arguments are those of `model`."""
        ssvae, symbols = self.registered(), symbols_of(x)
        x = ssvae.encode(x, source, noise)
        with numpyro.plate("rows", len(symbols)), handlers.mask(mask=real_rows(symbols)):
            if y is None:
                y = numpyro.sample("y", ssvae.classifier(x), infer={"enumerate": "parallel"})
            with handlers.scale(scale=beta):
                numpyro.sample("z", ssvae.latent_encoder(x, ssvae.one_hot(y), noise))

    def registered(self) -> "SSVAE":
        """This model with the weights that NumPyro has for it, if it has any.

        Raises:
            ValueError: If these weights are of other shapes, or if the program that is being traced has another model
                of this name: NumPyro would train one of the two.
        """
        parameters = self.parameters()
        for handler in _PYRO_STACK:
            site = handler.trace.get(self.name) if isinstance(handler, handlers.trace) else None
            if site is not None and not any(_same(parameters, known) for known in (*site["args"], site["value"])):
                raise ValueError(
                    f"two models of one NumPyro program have the name {self.name!r}, and only one of them would be "
                    "trained: give each a name of its own, SSVAE(..., name=...)."
                )
        return self.bind(numpyro.param(self.name, parameters))

    def encode(
        self, x: Int[Array, "B T"] | Encoding, source: Array | Encoding | None = None, noise: Noise | None = None
    ) -> Encoding:
        """Features of each row for classifier and latent encoder: those of x, and of the source if there is one."""
        if isinstance(x, Encoding):
            return x
        encoding, source = self.encoder(x, noise), self.encode_source(source, noise)
        if source is None:
            return encoding
        features = tuple(jnp.concatenate([of_tower, source.features[0]], -1) for of_tower in encoding.features)
        return encoding._replace(features=features)

    def encode_source(self, source: Array | Encoding | None, noise: Noise | None = None) -> Encoding | None:
        """What is made of the sources, once for model and guide; None of a model without.

        Raises:
            ValueError: If the model has sources and none are given, or the other way round.
        """
        if (source is not None) != self.has_source:
            raise ValueError(
                "the model has sources: give source." if self.has_source else "the model has no sources: give none."
            )
        return source if source is None or isinstance(source, Encoding) else self.source_encoder(source, noise)

    def label_prior(self, source: Encoding | None = None) -> dist.CategoricalLogits:
        """p(y), or p(y|source)."""
        if source is None:
            return dist.CategoricalLogits(self.log_prior)
        return dist.CategoricalLogits(jax.nn.log_softmax(self.log_prior + self.label_predictor(source.features[0])))

    def latent_prior(self, source: Encoding | None = None, y: Float[Array, "*#B L"] | None = None) -> DiagonalNormal:
        """p(z), or p(z|source,y) of one-hot y."""
        if source is None or y is None:
            zeros = jnp.zeros(self.config.latent_size, self.precision)
            return DiagonalNormal(zeros, jnp.ones_like(zeros))
        return self.latent_predictor(source, y)

    def one_hot(self, y: Array) -> Float[Array, "*B L"]:
        """One-hot vectors of label ids; vectors are left as they are."""
        return one_hot(y, self.label_count, self.precision)

    @property
    def log_prior(self) -> Float[Array, " K"]:
        """log p(y)."""
        return jnp.array(self.log_probabilities, self.precision)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight."""
        return parameter_shapes(*self.sizes, self.source_vocabulary_size)

    def parameters(self) -> dict[str, Array]:
        """All weights by name, in the order of `seqssvae.parameters`: what an optimiser of one's own would move."""
        flat = nnx.to_pure_dict(nnx.state(self, nnx.Param))
        return {name: _entry(flat, name) for name in self.shapes}

    def take_parameters(self) -> dict[str, Array]:
        """All weights by name; the model keeps their shapes alone, to be bound to others."""
        parameters = self.parameters()
        shapes = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in parameters.items()}
        nnx.update(self, nnx.state(self.bind(shapes), nnx.Param))
        return parameters

    def to_parameters(self, weights: Mapping[str, np.ndarray]) -> dict[str, Array]:
        """Weights of files or of the other twin as this model's, which are not changed.

        Raises:
            ValueError: On a missing or unknown name, or a wrong shape.
        """
        check_weights(weights, self.shapes)
        return {name: jnp.array(weights[name], self.precision) for name in self.shapes}

    def bind(self, parameters: Mapping[str, Any]) -> "SSVAE":
        """The same model with these weights, for use inside a transformation.

        Raises:
            ValueError: On a missing or unknown name, or a wrong shape.
        """
        check_weights(parameters, self.shapes)
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
        nnx.update(self, nnx.state(self.bind(self.to_parameters(weights)), nnx.Param))

    def get_weights(self) -> dict[str, np.ndarray]:
        """Copies of all weights, in the order of `seqssvae.parameters`."""
        return {name: np.array(value) for name, value in self.parameters().items()}


def _same(parameters: Mapping[str, Any], others: Any) -> bool:
    """Whether these are the same arrays, not merely equal ones."""
    return all(others.get(name) is value for name, value in parameters.items())


def _path(name: str) -> list[str | int]:
    """Keys on the way to a weight: lists have numbers, dictionaries names."""
    parts = name.split(".")
    pairs = zip(["", *parts[:-1]], parts, strict=True)
    return [int(key) if before in ("towers", "layers") else key for before, key in pairs]


def _entry(nested: Any, name: str) -> Array:
    return reduce(getitem, _path(name), nested)
