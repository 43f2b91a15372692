"""What the objectives have in common that choose which labels a program is run with.

They go with any Pyro model and guide that have one discrete latent variable a row, such as

    def guide(x):
        with pyro.plate("rows", len(x)):
            y = one_hot(pyro.sample("y", Categorical(logits=classifier(x))), K)
            pyro.sample("z", Normal(*encoder(x, y)).to_event(1))

of which three things are asked: the plate of rows is the last one (dimension -1); the distribution of the discrete site
is a `Categorical` (whose value the program turns into vectors by `one_hot`) or a `OneHotCategorical`, in the guide and
in the model; and what depends on its value broadcasts over dimensions in front: it is run with vectors of shape
`(S, B, K)`, for S labels of each row at once, or `(B, K)`. With f(x, y) all log-probabilities but those of y, the ELBO
of a row is

    U(x) = sum_y q(y|x) f(x, y) - KL(q(y|x) || p(y))

whose second part is exact in all of these objectives; they differ in what they make of the first.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from pyro import poutine
from pyro.infer import ELBO
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from seqssvae_torch.handlers import GradientWeights

Choice = Callable[[Float[Tensor, "B K"]], tuple[Tensor, Tensor]]


class Estimate(NamedTuple):
    """An objective's value and its parts.

    Args:
        loss: Minus the ELBO, with the gradient that is to be followed.
        model: log-probabilities of the model's other sites by name: of each row, averaged over labels, without scale.
        guide: The same of the guide.
        kl: KL(q(y|x) || p(y)) of each row, without scale.
    """

    loss: Float[Tensor, ""]
    model: dict[str, Float[Tensor, "B"]]
    guide: dict[str, Float[Tensor, "B"]]
    kl: Float[Tensor, "B"]


class LabelSite(Messenger):
    """Sets the value of the discrete site, as a function of its log-probabilities.

    Args:
        site: Its name.
        choose: Returns the value, as one-hot vectors, and by what the log-probabilities of what depends on it will be
            multiplied.
    """

    def __init__(self, site: str, choose: Choice) -> None:
        super().__init__()
        self.site, self.choose = site, choose
        self.log_q: Tensor | None = None
        self.weights: Tensor | None = None

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == self.site and not msg["done"]:
            self.log_q = msg["fn"].logits.log_softmax(-1)
            msg["value"], self.weights = self.choose(self.log_q)
            msg["done"] = True

    def log_probabilities(self) -> Float[Tensor, "B K"]:
        """log q(y|x), once the guide has run."""
        if self.log_q is None:
            raise ValueError(f"the guide has no sample site {self.site!r}: name its discrete site by site=...")
        return self.log_q


class Evaluated(NamedTuple):
    """A program run with chosen labels; S may be missing."""

    log_q: Float[Tensor, "B K"]
    kl: Float[Tensor, "B"]
    scale: Any
    mask: Any
    signal: Float[Tensor, "*S B"]
    shared: Tensor | float
    model: dict[str, Tensor]
    guide: dict[str, Tensor]


class LabelELBO(ELBO, ABC):
    """What these objectives have in common.

    Args:
        site: Name of the discrete site.
    """

    def __init__(self, site: str = "y") -> None:
        super().__init__()
        self.site = site

    @abstractmethod
    def estimate(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Estimate:
        """The objective on these arguments of model and guide, and its parts.

        Raises:
            ValueError: If the guide has no site of that name, or one that is not Categorical.
        """

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Float[Tensor, ""]:
        """Minus the ELBO, with a gradient."""
        return self.estimate(model, guide, *args, **kwargs).loss

    @torch.no_grad()
    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the ELBO."""
        return float(self.estimate(model, guide, *args, **kwargs).loss)

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the ELBO; its gradient is added to that of the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        return float(loss.detach())

    def _run(
        self,
        model: Any,
        guide: Any,
        args: Any,
        kwargs: Mapping[str, Any],
        choose: Choice,
    ) -> Evaluated:
        """The programs, with the labels that are chosen."""
        with LabelSite(self.site, choose) as given:
            guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        log_q, told = given.log_probabilities(), GradientWeights(given.weights)(model)
        model_trace = poutine.trace(poutine.replay(told, trace=guide_trace)).get_trace(*args, **kwargs)
        node = guide_trace.nodes[self.site]
        log_p = model_trace.nodes[self.site]["fn"].logits.log_softmax(-1)
        kl = (log_q.exp() * (log_q - log_p)).sum(-1)
        of_model, of_guide = self._sites(model_trace), self._sites(guide_trace)
        signal, shared = 0.0, 0.0
        for sign, sites in ((1.0, of_model), (-1.0, of_guide)):
            for site in sites.values():
                if site["log_prob"].dim():
                    signal = signal + sign * site["log_prob"]
                else:
                    shared = shared + sign * site["log_prob"]
        return Evaluated(
            log_q,
            kl,
            node["scale"],
            node["mask"],
            signal + torch.zeros_like(kl),
            shared,
            *({name: site["unscaled_log_prob"].detach() for name, site in of.items()} for of in (of_model, of_guide)),
        )

    def _sites(self, trace: Trace) -> dict[str, dict[str, Any]]:
        """All other sample sites, with their log-probabilities."""
        trace.compute_log_prob(lambda name, _: name != self.site)
        nodes = trace.nodes.items()
        return {name: node for name, node in nodes if node["type"] == "sample" and "log_prob" in node}

    @staticmethod
    def _rows(run: Evaluated, elbo: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """The ELBO of each row that counts."""
        values = elbo - run.scale * run.kl
        if run.mask is None:
            return values
        return torch.where(torch.as_tensor(run.mask, device=values.device), values, 0.0)


def averaged(sites: dict[str, Tensor], weights: Float[Tensor, "*S B"]) -> dict[str, Float[Tensor, "B"]]:
    """Log-probabilities of sites, averaged over labels with these weights."""
    return {
        name: (weights * value).reshape(-1, weights.shape[-1]).sum(0) for name, value in sites.items() if value.dim()
    }
