"""Objectives that choose which labels a program is run with: some, one, or one after the other.

Each is a `LabelELBO`, whose module says with which programs they go.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from pyro import poutine
from torch import Tensor
from torch.utils import _pytree as pytree

from seqssvae_torch.distributions import one_hot
from seqssvae_torch.label_elbo import Estimate, Evaluated, LabelELBO, LabelSite, averaged, one_label, weighed

Baseline = Float[Tensor, "..."] | float | Callable[..., Tensor] | None


class ChosenLabelsELBO(LabelELBO):
    """What the objectives have in common that run a program once, with labels chosen for each row.

    Args:
        site: Name of the discrete site.
        noise: Standard Gumbel noise that decides which labels are drawn; None: it is drawn.
        max_plate_nesting: As of `LabelELBO`.
    """

    def __init__(
        self, site: str = "y", noise: Float[Tensor, "B K"] | None = None, max_plate_nesting: int | None = None
    ) -> None:
        super().__init__(site, max_plate_nesting)
        self.noise = noise

    def estimate(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Estimate:
        """As `LabelELBO.estimate`."""
        chosen: list[Any] = []

        def choose(log_q: Float[Tensor, "B K"]) -> tuple[Tensor, Tensor]:
            noise = -torch.empty_like(log_q).exponential_().log() if self.noise is None else self.noise
            labels, vectors = self._choose(log_q, noise)
            chosen.append(labels)
            return vectors, self._weights(log_q.detach(), labels)

        run = self._run(model, guide, args, kwargs, choose)
        loss = -((self._elbo(run, chosen[0], args, kwargs) - run.weighted_kl).sum() + run.shared)
        weights = self._weights(run.log_q.detach(), chosen[0])
        return Estimate(loss, averaged(run.model, weights), averaged(run.guide, weights), run.kl.detach())

    @abstractmethod
    def _choose(self, log_q: Float[Tensor, "B K"], noise: Float[Tensor, "B K"]) -> tuple[Any, Float[Tensor, "*S B K"]]:
        """The labels that the program is run with, and their vectors."""

    @abstractmethod
    def _elbo(self, run: Evaluated, labels: Any, args: Any, kwargs: Any) -> Float[Tensor, " B"]:
        """An estimate of sum_y q(y|x) f(x, y), for each row."""

    def _weights(self, log_q: Float[Tensor, "B K"], labels: Any) -> Float[Tensor, "*S B"]:
        """The weights by which f of each label counts."""
        return torch.ones_like(log_q[:, 0])


class TopKELBO(ChosenLabelsELBO):
    """Sums out the k most probable labels of each row and draws one of the others: unbiased in value and gradient.

        sum_{y in C} q(y) f(y) + (1 - q(C)) f(v),    v ~ q restricted to the labels that are not in C

    The gradient has for v the term (1 - q(C)) (f(v) - b) grad log q(v) + b grad (1 - q(C)), where the control variate b
    is the mean of f over C, which does not depend on v. With k of at least K - 1 nothing is left to draw, and it is the
    exact sum.

    Args:
        k: How many labels are summed out, at least 1.
        site: Name of the discrete site.
        noise: Standard Gumbel noise that decides which label is drawn; None: it is drawn.
        max_plate_nesting: As of `LabelELBO`.

    References:
        Liu et al. 2019, Rao-Blackwellized Stochastic Gradients for Discrete Distributions, equation 7,
        https://arxiv.org/abs/1810.04777.
    """

    def __init__(
        self,
        k: int,
        site: str = "y",
        noise: Float[Tensor, "B K"] | None = None,
        max_plate_nesting: int | None = None,
    ) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}.")
        super().__init__(site, noise, max_plate_nesting)
        self.k = k

    def labels(self, log_q: Float[Tensor, "B K"], noise: Float[Tensor, "B K"]) -> Int[Tensor, "S B"]:
        """Ids of the labels in C, the most probable first, and behind them of the one drawn."""
        log_q = log_q.detach()
        order = log_q.sort(dim=-1, descending=True, stable=True).indices
        if self.k >= log_q.shape[-1] - 1:
            return order.t()
        top = order[:, : self.k]
        drawn = (log_q + noise).scatter(-1, top, -torch.inf).argmax(-1, keepdim=True)
        return torch.cat([top, drawn], -1).t()

    def weights(self, log_q: Float[Tensor, "B K"], labels: Int[Tensor, "S B"]) -> Float[Tensor, "S B"]:
        """q(y|x) of the labels in C, and what is left of 1."""
        if len(labels) == log_q.shape[-1]:
            return log_q.t().gather(0, labels).exp()
        rest = log_q.exp().scatter(-1, labels[: self.k].t(), 0.0).sum(-1)
        return torch.cat([log_q.t().gather(0, labels[: self.k]).exp(), rest[None]])

    def _choose(
        self, log_q: Float[Tensor, "B K"], noise: Float[Tensor, "B K"]
    ) -> tuple[Tensor, Float[Tensor, "S B K"]]:
        labels = self.labels(log_q, noise)
        return labels, one_hot(labels, log_q.shape[-1], log_q.dtype)

    def _weights(self, log_q: Float[Tensor, "B K"], labels: Int[Tensor, "S B"]) -> Float[Tensor, "S B"]:
        return self.weights(log_q, labels)

    def _elbo(self, run: Evaluated, labels: Int[Tensor, "S B"], args: Any, kwargs: Any) -> Float[Tensor, " B"]:
        weights, signal = self.weights(run.log_q, labels), run.signal
        if signal.dim() == 1:  # nothing depends on the label
            return signal
        if len(weights) == run.log_q.shape[-1]:
            return weighed(weights, signal).sum(0)
        (q, rest), fixed = (weights[:-1], weights[-1]), weights.detach()
        known, drawn = signal[:-1], signal[-1]
        baseline = weighed(fixed[:-1], known.detach()).sum(0) / fixed[:-1].sum(0)
        log_q_drawn = run.log_q.gather(-1, labels[-1][:, None])[:, 0]
        score = weighed(fixed[-1], drawn.detach() - baseline) * _gradient_only(log_q_drawn)
        return weighed(q, known).sum(0) + weighed(fixed[-1], drawn) + score + baseline * _gradient_only(rest)


class GumbelSoftmaxELBO(ChosenLabelsELBO):
    """Draws one label, and passes a gradient as if it had been a mixture of all: biased, with little variance.

    The straight-through estimator: the program is run with the one-hot vector of the greatest entry of
    log q(y|x) + noise; its gradient is that of softmax((log q(y|x) + noise) / temperature).

    Args:
        temperature: Of the mixture, above 0: the lower, the less bias and the more variance.
        site: Name of the discrete site.
        noise: Standard Gumbel noise; None: it is drawn.
        max_plate_nesting: As of `LabelELBO`.

    References:
        Jang et al. 2017, Categorical Reparameterization with Gumbel-Softmax, section 2.2,
        https://arxiv.org/abs/1611.01144; Maddison et al. 2017, The Concrete Distribution,
        https://arxiv.org/abs/1611.00712.
    """

    def __init__(
        self,
        temperature: float | Tensor = 1.0,
        site: str = "y",
        noise: Float[Tensor, "B K"] | None = None,
        max_plate_nesting: int | None = None,
    ) -> None:
        super().__init__(site, noise, max_plate_nesting)
        self.temperature = temperature

    def _choose(self, log_q: Float[Tensor, "B K"], noise: Float[Tensor, "B K"]) -> tuple[None, Float[Tensor, "B K"]]:
        perturbed = log_q + noise
        mixture = (perturbed / self.temperature).softmax(-1)
        return None, one_hot(perturbed.argmax(-1), log_q.shape[-1], log_q.dtype) + _gradient_only(mixture)

    def _elbo(self, run: Evaluated, labels: None, args: Any, kwargs: Any) -> Float[Tensor, " B"]:
        return run.signal


class ScoreFunctionELBO(ChosenLabelsELBO):
    """Draws one label y and multiplies grad log q(y|x) with how much better than expected it was: unbiased.

        f(y) with the gradient grad f(y) + (f(y) - b) grad log q(y|x)

    Args:
        baseline: b, which must not depend on y: a number, one for each row, or a function of the arguments of model
            and guide that returns either. None: the mean of f over the other rows of the batch. Rows whose y is masked
            have none, so that filler rows, whose f is 0, have no gradient.
        site: Name of the discrete site.
        noise: Standard Gumbel noise that decides which label is drawn; None: it is drawn.
        max_plate_nesting: As of `LabelELBO`.

    References:
        Williams 1992, Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning;
        Mnih & Gregor 2014, Neural Variational Inference and Learning in Belief Networks, section 2.3,
        https://arxiv.org/abs/1402.0030.
    """

    def __init__(
        self,
        baseline: Baseline = None,
        site: str = "y",
        noise: Float[Tensor, "B K"] | None = None,
        max_plate_nesting: int | None = None,
    ) -> None:
        super().__init__(site, noise, max_plate_nesting)
        self.baseline = baseline

    def _choose(self, log_q: Float[Tensor, "B K"], noise: Float[Tensor, "B K"]) -> tuple[Tensor, Float[Tensor, "B K"]]:
        drawn = (log_q.detach() + noise).argmax(-1)
        return drawn, one_hot(drawn, log_q.shape[-1], log_q.dtype)

    def _elbo(self, run: Evaluated, labels: Int[Tensor, " B"], args: Any, kwargs: Any) -> Float[Tensor, " B"]:
        log_q_drawn = run.log_q.gather(-1, labels[:, None])[:, 0]
        advantage = run.signal.detach() - run.counted * self._expected(run, args, kwargs)
        return run.signal + advantage * _gradient_only(log_q_drawn)

    def _expected(self, run: Evaluated, args: Any, kwargs: Any) -> Any:
        if self.baseline is not None:
            return self.baseline(*args, **kwargs) if callable(self.baseline) else self.baseline
        signal = run.signal.detach()
        return ((run.counted * signal).sum() - signal) / (run.counted.sum() - 1).clamp(min=1)


class SequentialELBO(LabelELBO):
    """The exact sum over labels, one after the other: the loss and gradient of enumeration in the memory of one label.

    The gradient of each label's term is made before the next label's turn, so that nothing else of it need be kept. The
    guide runs K times: what does not depend on y had better be an argument.

    Args:
        parameters: What the programs depend on besides their arguments; None: what they declare by `pyro.param` and
            `pyro.module`.
        site: Name of the discrete site.
        max_plate_nesting: As of `LabelELBO`.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | None = None,
        site: str = "y",
        max_plate_nesting: int | None = None,
    ) -> None:
        super().__init__(site, max_plate_nesting)
        self.parameters = None if parameters is None else list(parameters)

    def estimate(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Estimate:
        """As `LabelELBO.estimate`."""
        leaves, layout = pytree.tree_flatten((args, kwargs))
        variables = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
        parameters = self._declared(model, guide, args, kwargs) if self.parameters is None else self.parameters
        first: list[Evaluated] = []
        sums: list[dict[str, Tensor]] = [{}, {}]

        def of_label(y: int, copies: list[Tensor]) -> Float[Tensor, ""]:
            remaining = iter(copies)
            taken = [next(remaining) if isinstance(leaf, Tensor) and leaf.requires_grad else leaf for leaf in leaves]
            own_args, own_kwargs = pytree.tree_unflatten(taken, layout)
            run = self._run(model, guide, own_args, own_kwargs, lambda log_q: one_label(log_q, y))
            q = run.log_q[:, y].exp()
            if not first:
                first.append(run._replace(log_q=run.log_q.detach(), kl=run.kl.detach()))
            for total, sites in zip(sums, (run.model, run.guide), strict=True):
                for name, value in averaged(sites, q.detach()).items():
                    total[name] = total.get(name, 0.0) + value
            share = 1 / run.log_q.shape[-1]  # of what does not depend on the label
            return -((weighed(q, run.signal) - share * run.weighted_kl).sum() + share * run.shared)

        nesting = self._nesting(model, guide, args, kwargs)
        with torch.no_grad(), LabelSite(self.site, lambda log_q: one_label(log_q, 0), nesting) as counter:
            guide(*args, **kwargs)  # to know how many labels there are
        label_count = counter.log_probabilities().shape[-1]
        loss = _Accumulated.apply(of_label, label_count, len(variables), *variables, *parameters)
        return Estimate(loss, sums[0], sums[1], first[0].kl)

    @staticmethod
    def _declared(model: Any, guide: Any, args: Any, kwargs: Any) -> list[Tensor]:
        with torch.no_grad(), poutine.trace(param_only=True) as capture:
            poutine.replay(model, trace=poutine.trace(guide).get_trace(*args, **kwargs))(*args, **kwargs)
        return [site["value"].unconstrained() for site in capture.trace.nodes.values()]


class _Accumulated(torch.autograd.Function):
    """The sum of a scalar function over all labels, whose gradient is made label by label on the way forward.

    Arguments: the function of a label and of copies of the variables; the number of labels; how many of the tensors
    that follow are variables, the others being parameters that the function finds by itself.
    """

    @staticmethod
    def forward(
        context: Any, of_label: Callable[[int, list[Tensor]], Tensor], labels: int, n: int, *tensors: Tensor
    ) -> Tensor:
        wanted = any(context.needs_input_grad)
        with torch.enable_grad():
            copies = [tensor.detach().requires_grad_() for tensor in tensors[:n]]
        moved = [tensor for tensor in (*copies, *tensors[n:]) if tensor.requires_grad]
        loss, gradients = None, [torch.zeros_like(tensor) for tensor in moved]
        for y in range(labels):
            with torch.set_grad_enabled(wanted):
                term = of_label(y, copies)
            if wanted:
                of_term = torch.autograd.grad(term, moved, allow_unused=True)
                for total, part in zip(gradients, of_term, strict=True):
                    if part is not None:
                        total += part
            loss = term.detach() if loss is None else loss + term.detach()
        assert loss is not None
        context.save_for_backward(*gradients)
        context.moved = [True] * n + [tensor.requires_grad for tensor in tensors[n:]]
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradients = iter(context.saved_tensors)
        return None, None, None, *(grad_outputs[0] * next(gradients) if moved else None for moved in context.moved)


def _gradient_only(value: Tensor) -> Tensor:
    """0, with the gradient of the value; of what is impossible, none."""
    finite = torch.where(torch.isfinite(value), value, 0.0)
    return finite - finite.detach()
