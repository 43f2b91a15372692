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
from seqssvae.parameters import check_weights, initial_weights, parameter_shapes
from seqssvae_torch.distributions import with_gradient_share
from seqssvae_torch.estimators import one_hot
from seqssvae_torch.modules import Classifier, Decoder, Encoder, LatentEncoder, Noise
from seqssvae_torch.products import Multiplies


class SSVAE(nn.Module):
    """A semi-supervised variational autoencoder for sequences (Kingma et al. 2014, model M2, with a recurrent decoder).

        p(y) = Categorical(prior)    p(z) = N(0, I)    p(x|y,z) = prod_t Categorical(x_t | x_<t, y, z)
        q(y|x) = Categorical(classifier(x))            q(z|x,y) = N(loc(x, y), scale(x, y))

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
    ) -> None:
        super().__init__()
        label_count = len(label_prior)
        self.config = config
        self.name = name
        self.enumeration = enumeration
        self.label_count = label_count
        self.encoder = Encoder(config, vocabulary_size)
        self.classifier = Classifier(config, label_count)
        self.latent_encoder = LatentEncoder(config, label_count)
        self.decoder = Decoder(config, vocabulary_size, label_count)
        self.shapes = parameter_shapes(config, vocabulary_size, label_count)
        self.register_buffer("log_prior", torch.tensor(np.log(label_prior)), persistent=False)
        self.to(getattr(torch, weight_type(precision)))
        for module in self.modules():
            if isinstance(module, Multiplies):
                module.rounding = torch.bfloat16 if precision == "bf16" else None
        self.set_weights(initial_weights(config, vocabulary_size, label_count, seed, weight_type(precision)))

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
        """
        self._register()
        with pyro.plate("rows", len(x), device=x.device):
            with poutine.mask(mask=row_mask):
                y = pyro.sample("y", self.label_prior(), obs=y)
                with poutine.scale(scale=beta):
                    z = pyro.sample("z", self.latent_prior())
            # Filler rows have no symbols, hence probability 1: x needs no mask.
            pyro.sample("x", self.decoder(self.one_hot(y), z, x.shape[1], noise, weights), obs=x)

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
    ) -> None:
        """q(y, z | x), or q(z | x, y) where y is observed.

        Arguments are those of `model`; `features` is `encoder(x)`, if it is known, and `label_gradient` the share of
        the gradient that reaches an enumerated q(y|x); `weights` are for the model.
        """
        self._register()
        if features is None:
            features = self.encoder(x, noise)
        with pyro.plate("rows", len(x), device=x.device), poutine.mask(mask=row_mask):
            if y is None:
                q_y = with_gradient_share(self.classifier(features), label_gradient)
                y = pyro.sample("y", q_y, infer={"enumerate": self.enumeration})
            with poutine.scale(scale=beta):
                pyro.sample("z", self.latent_encoder(features, self.one_hot(y), noise))

    def label_prior(self) -> dist.Categorical:
        """p(y)."""
        return dist.Categorical(logits=self.log_prior)

    def latent_prior(self) -> dist.Distribution:
        """p(z)."""
        zeros = self.log_prior.new_zeros(self.config.latent_size)
        return dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)

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
