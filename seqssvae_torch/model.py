"""The generative model and the inference model ("guide") as Pyro programs."""

from collections.abc import Mapping, Sequence
from weakref import WeakValueDictionary

import numpy as np
import pyro
import torch
from jaxtyping import Float, Int
from pyro import distributions as dist
from pyro import poutine
from pyro.params import param_with_module_name
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor, nn

from seqssvae.config import ModelConfig, Precision, weight_type
from seqssvae.parameters import (
    check_weights,
    feature_size,
    initial_weights,
    parameter_shapes,
    source_feature_size,
)
from seqssvae_torch.decoder import Decoder
from seqssvae_torch.distributions import DiagonalNormal, one_hot
from seqssvae_torch.modules import (
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

_BOUND: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
"""Weights of all models that Pyro's store knows or knew, by id: others that it has were loaded."""


class SSVAE(nn.Module):
    """A semi-supervised variational autoencoder for sequences (Kingma et al. 2014, model M2, with a recurrent decoder).

        p(y) = Categorical(prior)    p(z) = N(0, I)    p(x|y,z) = prod_t Categorical(x_t | x_<t, y, z)
        q(y|x) = Categorical(classifier(x))            q(z|x,y) = N(loc(x, y), scale(x, y))

    Where sequences have a source that they are made from, all of these distributions are given the source as well:

        p(y|s) p(z|s,y) p(x|s,y,z)    q(y|s,x) q(z|s,x,y)

    `model` and `guide` are Pyro programs for batches whose label is observed (`y` given) or missing (`y` None, then
    enumerated in the guide, or chosen by an objective of `gradient_estimators`). They go with any Pyro objective; a
    batch of both kinds is two calls.

    Args:
        config: The networks.
        vocabulary_size: V, special symbols included.
        label_prior: p(y), one probability per label.
        seed: Seed of the first weights, which are the same in both twins.
        precision: Floating-point type of weights and results. `bf16` means float32 weights; the products of a run are
            rounded by its backend, or by `seqssvae_torch.ops.rounded_products`.
        source_vocabulary_size: V of the sources; 0 where there are none.
        name: Prefix under which Pyro's parameter store knows the weights: those of the model of this name that was run
            last. Values that the store was loaded with are copied into the model. None keeps the weights out of the
            store, for optimisers that take `parameters()`.
    """

    log_prior: Tensor

    def __init__(
        self,
        config: ModelConfig,
        vocabulary_size: int,
        label_prior: Sequence[float],
        seed: int = 0,
        precision: Precision = "float32",
        source_vocabulary_size: int = 0,
        name: str | None = "ssvae",
    ) -> None:
        super().__init__()
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
        self.shapes = parameter_shapes(config, vocabulary_size, label_count, source_vocabulary_size)
        self.register_buffer("log_prior", torch.tensor(np.log(label_prior)), persistent=False)
        self.to(getattr(torch, weight_type(precision)))
        sizes = config, vocabulary_size, label_count
        self.set_weights(initial_weights(*sizes, seed, weight_type(precision), source_vocabulary_size))

    def model(
        self,
        x: Int[Tensor, "B T"] | Encoding,
        y: Int[Tensor, " B"] | None = None,
        source: Int[Tensor, "B S"] | Encoding | None = None,
        beta: float = 1.0,
        noise: Noise | None = None,
    ) -> None:
        """p(x, y, z).

        Args:
            x: Symbol ids, each row ending with END and then PAD; or `encode` of them. Rows of PAD alone weigh nothing.
            y: Label ids, or None where they are missing.
            source: Symbol ids of the sources, of a model that has them; or `encode_source` of them.
            beta: Weight of z's terms, above 0.
            noise: What is drawn at random, as in `seqssvae.noise`; without it Pyro draws z and nothing is dropped.
        """
        ssvae, x = self.registered(), symbols_of(x)
        source = ssvae.encode_source(source, noise)
        with pyro.plate("rows", len(x), device=x.device):
            with poutine.mask(mask=real_rows(x)):
                y = ssvae.one_hot(pyro.sample("y", ssvae.label_prior(source), obs=y))
                with poutine.scale(scale=beta):
                    z = pyro.sample("z", ssvae.latent_prior(source, y))
            pyro.sample("x", ssvae.decoder(y, z, x.shape[1], source, noise), obs=x)  # of filler rows it is 1

    def guide(
        self,
        x: Int[Tensor, "B T"] | Encoding,
        y: Int[Tensor, " B"] | None = None,
        source: Int[Tensor, "B S"] | Encoding | None = None,
        beta: float = 1.0,
        noise: Noise | None = None,
    ) -> None:
        """q(y, z | x), or q(z | x, y) where y is observed. Arguments are those of `model`."""
        ssvae, symbols = self.registered(), symbols_of(x)
        x = ssvae.encode(x, source, noise)
        with pyro.plate("rows", len(symbols), device=symbols.device), poutine.mask(mask=real_rows(symbols)):
            if y is None:
                y = pyro.sample("y", ssvae.classifier(x), infer={"enumerate": "parallel"})
            with poutine.scale(scale=beta):
                pyro.sample("z", ssvae.latent_encoder(x, ssvae.one_hot(y), noise))

    def registered(self) -> "SSVAE":
        """This model, whose weights Pyro's parameter store now knows.

        Raises:
            ValueError: If the store was loaded with values of another shape, or if what is being traced, a program or a
                step of `SVI`, has another model of this name: Pyro would train one of the two.
        """
        if self.name is not None:
            self._check_alone(self.name)
            self._bind(self.name)
            pyro.module(self.name, self)
        return self

    def _check_alone(self, name: str) -> None:
        """Raise an error if a program that is being traced has another model's weights under this name."""
        traced = [handler.trace.nodes for handler in _PYRO_STACK if isinstance(handler, TraceMessenger)]
        for own_name, parameter in self.named_parameters():
            full_name = param_with_module_name(name, own_name)
            sites = [nodes[full_name] for nodes in traced if full_name in nodes]
            if any(site["type"] == "param" and site["value"] is not parameter for site in sites):
                raise ValueError(
                    f"two models of one Pyro program have the name {name!r}, and only one of them would be trained: "
                    "give each a name of its own, SSVAE(..., name=...)."
                )

    def _bind(self, name: str) -> None:
        """Remove other models' weights from Pyro's store under this name, and copy in what it was loaded with."""
        store = pyro.get_param_store()
        for own_name, parameter in self.named_parameters():
            full_name = param_with_module_name(name, own_name)
            if full_name in store and (stored := store[full_name]) is not parameter:
                if _BOUND.get(id(stored)) is not stored:
                    if stored.shape != parameter.shape:
                        raise ValueError(
                            f"Pyro's parameter store has {own_name} of shape {tuple(stored.shape)} under the name "
                            f"{name!r}, not {tuple(parameter.shape)}: pyro.clear_param_store(), or give another name."
                        )
                    parameter.data.copy_(stored.detach())
                del store[full_name]
            _BOUND[id(parameter)] = parameter

    def encode(
        self, x: Int[Tensor, "B T"] | Encoding, source: Tensor | Encoding | None = None, noise: Noise | None = None
    ) -> Encoding:
        """Features of each row for classifier and latent encoder: those of x, and of the source if there is one."""
        if isinstance(x, Encoding):
            return x
        encoding, source = self.encoder(x, noise), self.encode_source(source, noise)
        if source is None:
            return encoding
        features = tuple(torch.cat([of_tower, source.features[0]], -1) for of_tower in encoding.features)
        return encoding._replace(features=features)

    def encode_source(self, source: Tensor | Encoding | None, noise: Noise | None = None) -> Encoding | None:
        """What is made of the sources, once for model and guide; None of a model without.

        Raises:
            ValueError: If the model has sources and none are given, or the other way round.
        """
        if (source is not None) != self.has_source:
            raise ValueError(
                "the model has sources: give source." if self.has_source else "the model has no sources: give none."
            )
        return source if source is None or isinstance(source, Encoding) else self.source_encoder(source, noise)

    def label_prior(self, source: Encoding | None = None) -> dist.Categorical:
        """p(y), or p(y|source)."""
        if source is None:
            return dist.Categorical(logits=self.log_prior)
        return dist.Categorical(logits=self.log_prior + self.label_predictor(source.features[0]))

    def latent_prior(self, source: Encoding | None = None, y: Float[Tensor, "*#B L"] | None = None) -> DiagonalNormal:
        """p(z), or p(z|source,y) of one-hot y."""
        if source is None or y is None:
            zeros = self.log_prior.new_zeros(self.config.latent_size)
            return DiagonalNormal(zeros, torch.ones_like(zeros))
        return self.latent_predictor(source, y)

    def one_hot(self, y: Tensor) -> Float[Tensor, "*B L"]:
        """One-hot vectors of label ids; vectors are left as they are."""
        return one_hot(y, self.label_count, self.log_prior.dtype)

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Copy weights in, named and laid out as in `seqssvae.parameters`.

        Raises:
            ValueError: On a missing or unknown name, or a wrong shape.
        """
        check_weights(weights, self.shapes)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(torch.from_numpy(np.asarray(weights[name])))

    def get_weights(self) -> dict[str, np.ndarray]:
        """Copies of all weights, in the order of `seqssvae.parameters`."""
        weights = dict(self.named_parameters())
        return {name: weights[name].detach().cpu().numpy().copy() for name in self.shapes}
