"""The generative model and the inference model ("guide") as Pyro programs."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pyro
import torch
from jaxtyping import Bool, Float, Int
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor, nn

from seqssvae.config import ModelConfig, Precision, weight_type
from seqssvae.parameters import check_weights, feature_size, initial_weights, parameter_shapes
from seqssvae_torch.decoder import Decoder
from seqssvae_torch.distributions import DiagonalNormal, with_gradient_share
from seqssvae_torch.estimators import one_hot
from seqssvae_torch.modules import Classifier, Encoder, Encoding, LatentEncoder, Linear, Noise, SourceEncoder
from seqssvae_torch.products import Multiplies


class SSVAE(nn.Module):
    """A semi-supervised variational autoencoder for sequences (Kingma et al. 2014, model M2, with a recurrent decoder).

        p(y) = Categorical(prior)    p(z) = N(0, I)    p(x|y,z) = prod_t Categorical(x_t | x_<t, y, z)
        q(y|x) = Categorical(classifier(x))            q(z|x,y) = N(loc(x, y), scale(x, y))

    Where sequences have a source that they are made from, all of these distributions are given the source as well:

        p(y|s) p(z|s,y) p(x|s,y,z)    q(y|s,x) q(z|s,x,y)

    `model` and `guide` are Pyro programs for batches whose label is observed (`y` given) or missing (`y` None, then
    enumerated in the guide, or chosen by an objective of `estimators`). They go with any Pyro objective; a batch of
    both kinds is two calls.

    Args:
        config: The networks.
        vocabulary_size: V, special symbols included.
        label_prior: p(y), one probability per label.
        seed: Seed of the first weights, which are the same in both twins.
        name: Prefix under which Pyro's parameter store knows the weights (one model at a time per name); None keeps
            them out of it, for optimisers that take `parameters()`.
        enumeration: How the guide enumerates y: all labels at once, or one after the other (as a check).
        precision: Floating-point type of weights and results; `bf16`: float32, and products of bfloat16 operands.
        source_vocabulary_size: V of the sources; 0 where there are none.
    """

    log_prior: Tensor

    def __init__(
        self,
        config: ModelConfig,
        vocabulary_size: int,
        label_prior: Sequence[float],
        seed: int = 0,
        name: str | None = "ssvae",
        enumeration: Literal["parallel", "sequential"] = "parallel",
        precision: Precision = "float32",
        source_vocabulary_size: int = 0,
    ) -> None:
        super().__init__()
        label_count = len(label_prior)
        has_source, features = source_vocabulary_size > 0, feature_size(config)
        encoded = features * (2 if has_source else 1)
        self.config = config
        self.name = name
        self.enumeration = enumeration
        self.label_count = label_count
        self.encoder = Encoder(config, vocabulary_size)
        self.classifier = Classifier(encoded, label_count)
        self.latent_encoder = LatentEncoder(config, encoded, label_count)
        self.decoder = Decoder(config, vocabulary_size, label_count, has_source)
        self.has_source = has_source
        if has_source:
            self.source_encoder = SourceEncoder(config, source_vocabulary_size)
            self.label_predictor = Linear(features, label_count)
            self.latent_predictor = LatentEncoder(config, features, label_count)
        self.shapes = parameter_shapes(config, vocabulary_size, label_count, source_vocabulary_size)
        self.register_buffer("log_prior", torch.tensor(np.log(label_prior)), persistent=False)
        self.to(getattr(torch, weight_type(precision)))
        for module in self.modules():
            if isinstance(module, Multiplies):
                module.rounding = torch.bfloat16 if precision == "bf16" else None
        sizes = config, vocabulary_size, label_count
        self.set_weights(initial_weights(*sizes, seed, weight_type(precision), source_vocabulary_size))

    def model(
        self,
        x: Int[Tensor, "B T"],
        y: Int[Tensor, "B"] | None = None,
        row_mask: Bool[Tensor, "B"] | bool = True,
        beta: float = 1.0,
        noise: Noise | None = None,
        features: tuple[Tensor, ...] | None = None,
        label_gradient: float = 1.0,
        weights: Float[Tensor, "*B"] | None = None,
        source: Int[Tensor, "B S"] | Encoding | None = None,
    ) -> None:
        """p(x, y, z).

        Args:
            x: Symbol ids, each row ending with END and then PAD.
            y: Label ids, or None where they are missing.
            row_mask: True for real rows, False for filler rows.
            beta: Weight of z's terms, above 0.
            noise: What is drawn at random, as in `seqssvae.noise`; without it Pyro draws z and nothing is dropped.
            features: For the guide; unused here.
            label_gradient: For the guide; unused here.
            weights: By what the objective multiplies log p(x|y,z), if it is known: spares a product.
            source: Symbol ids of the sources, of a model that has them, or `encode_source` of them, if it is known.
        """
        self._register()
        encoding = self.encode_source(source, noise)
        with pyro.plate("rows", len(x), device=x.device):
            with poutine.mask(mask=row_mask):
                y = pyro.sample("y", self.label_prior(encoding), obs=y)
                with poutine.scale(scale=beta):
                    z = pyro.sample("z", self.latent_prior(encoding, self.one_hot(y)))
            # Filler rows have no symbols, hence probability 1: x needs no mask.
            pyro.sample("x", self.decoder(self.one_hot(y), z, x.shape[1], noise, weights, encoding), obs=x)

    def guide(
        self,
        x: Int[Tensor, "B T"],
        y: Int[Tensor, "B"] | None = None,
        row_mask: Bool[Tensor, "B"] | bool = True,
        beta: float = 1.0,
        noise: Noise | None = None,
        features: tuple[Tensor, ...] | None = None,
        label_gradient: float = 1.0,
        weights: Float[Tensor, "*B"] | None = None,
        source: Int[Tensor, "B S"] | Encoding | None = None,
    ) -> None:
        """q(y, z | x), or q(z | x, y) where y is observed.

        Arguments are those of `model`; `features` is `read(x, source)`, if it is known, and `label_gradient` the share
        of the gradient that reaches an enumerated q(y|x); `weights` are for the model.
        """
        self._register()
        if features is None:
            features = self.read(x, source, noise)
        with pyro.plate("rows", len(x), device=x.device), poutine.mask(mask=row_mask):
            if y is None:
                q_y = with_gradient_share(self.classifier(features), label_gradient)
                y = pyro.sample("y", q_y, infer={"enumerate": self.enumeration})
            with poutine.scale(scale=beta):
                pyro.sample("z", self.latent_encoder(features, self.one_hot(y), noise))

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

    def read(
        self, x: Int[Tensor, "B T"], source: Tensor | Encoding | None = None, noise: Noise | None = None
    ) -> tuple[Float[Tensor, "B F"], ...]:
        """Features of each row, for classifier and latent encoder: those of x, and of the source if there is one."""
        features, encoding = self.encoder(x, noise), self.encode_source(source, noise)
        if encoding is None:
            return features
        return tuple(torch.cat([of_tower, encoding.features], -1) for of_tower in features)

    def label_prior(self, source: Encoding | None = None) -> dist.Categorical:
        """p(y), or p(y|source)."""
        if source is None:
            return dist.Categorical(logits=self.log_prior)
        return dist.Categorical(logits=self.log_prior + self.label_predictor(source.features))

    def latent_prior(self, source: Encoding | None = None, y: Float[Tensor, "*#B L"] | None = None) -> DiagonalNormal:
        """p(z), or p(z|source,y) of one-hot y."""
        if source is None or y is None:
            zeros = self.log_prior.new_zeros(self.config.latent_size)
            return DiagonalNormal(zeros, torch.ones_like(zeros))
        return self.latent_predictor((source.features,), y)

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
        found = dict(self.named_parameters())
        return {name: found[name].detach().cpu().numpy().copy() for name in self.shapes}

    def _register(self) -> None:
        if self.name is not None:
            pyro.module(self.name, self)
