"""What the objectives have in common that choose which labels a program is run with.

They go with Pyro models and guides that have one discrete latent variable y a row, such as

    def guide(x):
        with pyro.plate("rows", len(x)):
            y = one_hot(pyro.sample("y", Categorical(logits=classifier(x))), K)
            pyro.sample("z", Normal(*encoder(x, y)).to_event(1))

of which this is asked:

- y has a `Categorical` distribution (whose value the program turns into vectors by `one_hot`) or a `OneHotCategorical`,
  in the guide and in the model, within the same plates;
- what depends on y is within these plates, and maybe in further ones;
- what depends on y broadcasts over dimensions in front: the programs are run with vectors of shape `(B, K)`, or of
  shape `(S, B, K)` for S labels of each row at once, whose first dimension is in front of those of all plates;
- the other latent variables of the guide are reparameterized, and the model has no others than the guide.

Plates may be nested, subsampled, beside or around that of the rows; scales, masks and factors count as they do in Pyro.
With f(x, y) all log-probabilities within y's plates but those of y, summed over further plates, the ELBO of a row is

    U(x) = sum_y q(y|x) f(x, y) - KL(q(y|x) || p(y))

whose second part is exact in all of these objectives; they differ in what they make of the first. What is outside of
y's plates is added once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import ELBO
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from seqssvae_torch.handlers import GradientWeights
from seqssvae_torch.label_cells import Cells, outside_message, plates_of

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
    model: dict[str, Float[Tensor, " B"]]
    guide: dict[str, Float[Tensor, " B"]]
    kl: Float[Tensor, " B"]


class LabelSite(Messenger):
    """Sets the value of the discrete site, as a function of its log-probabilities.

    Args:
        site: Its name.
        choose: Returns the value, as one-hot vectors of shape `(B, K)` or `(S, B, K)`, and by what the
            log-probabilities of what depends on it will be multiplied.
        nesting: How many dimensions the plates of the programs take.
    """

    def __init__(self, site: str, choose: Choice, nesting: int) -> None:
        super().__init__()
        self.site, self.choose, self.nesting = site, choose, nesting
        self.log_q: Tensor | None = None
        self.weights: Tensor | None = None

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == self.site and not msg["done"]:
            shape = msg["fn"].batch_shape
            self.log_q = log_probabilities(msg["fn"], self.site).flatten(0, -2)
            vectors, self.weights = self.choose(self.log_q)
            labels = () if vectors.dim() == 2 else (len(vectors), *[1] * (self.nesting - len(shape)))
            msg["value"] = vectors.reshape(*labels, *shape, vectors.shape[-1])
            msg["done"] = True

    def log_probabilities(self) -> Float[Tensor, "B K"]:
        """log q(y|x), once the guide has run."""
        if self.log_q is None:
            raise ValueError(f"the guide has no sample site {self.site!r}: name its discrete site by site=...")
        return self.log_q


class Evaluated(NamedTuple):
    """The programs run with chosen labels; S may be missing. Rows are all places of y's plates.

    Args:
        log_q: log q(y|x).
        kl: KL(q(y|x) || p(y)) of each row.
        weighted_kl: The same with scales and masks.
        signal: f(x, y) of each row.
        counted: 1 for the rows whose y counts, 0 for those where it is masked.
        shared: What is outside of y's plates.
        model: Log-probabilities of the model's other sites within y's plates, without scale and gradient.
        guide: The same of the guide.
    """

    log_q: Float[Tensor, "B K"]
    kl: Float[Tensor, " B"]
    weighted_kl: Float[Tensor, " B"]
    signal: Float[Tensor, "*S B"]
    counted: Float[Tensor, " B"]
    shared: Tensor | float
    model: dict[str, Tensor]
    guide: dict[str, Tensor]


class LabelELBO(ELBO, ABC):
    """What these objectives have in common.

    Args:
        site: Name of the discrete site.
        max_plate_nesting: How many dimensions the plates of the programs take; None: it is found by running them once.
    """

    def __init__(self, site: str = "y", max_plate_nesting: int | None = None) -> None:
        super().__init__(max_plate_nesting=float("inf") if max_plate_nesting is None else max_plate_nesting)
        self.site, self._is_checked = site, False

    @abstractmethod
    def estimate(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Estimate:
        """The objective on these arguments of model and guide, and its parts.

        Raises:
            ValueError: If the programs are not as this module asks for.
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

    def _nesting(self, model: Any, guide: Any, args: Any, kwargs: Mapping[str, Any]) -> int:
        if self.max_plate_nesting == float("inf"):
            with torch.no_grad():
                self._guess_max_plate_nesting(model, guide, args, kwargs)
        return int(self.max_plate_nesting)

    def _run(self, model: Any, guide: Any, args: Any, kwargs: Mapping[str, Any], choose: Choice) -> Evaluated:
        """The programs, with the labels that are chosen."""
        nesting = self._nesting(model, guide, args, kwargs)
        with LabelSite(self.site, choose, nesting) as given:

            def told(*args: Any, **kwargs: Any) -> Any:
                given.log_probabilities()
                return GradientWeights(given.weights)(model)(*args, **kwargs)

            model_trace, guide_trace = self._get_trace(told, guide, args, kwargs)
        log_q = given.log_probabilities()
        if self.site not in model_trace.nodes:
            raise ValueError(f"the model has no sample site {self.site!r}, which the guide has.")
        of_guide, of_model = guide_trace.nodes[self.site], model_trace.nodes[self.site]
        plates = plates_of(of_guide)
        if plates_of(of_model) != plates:
            raise ValueError(f"the site {self.site!r} must be within the same plates in the model and in the guide.")
        log_p = log_probabilities(of_model["fn"], self.site).flatten(0, -2)
        kl, weighted_kl = _divergence(log_q, log_p, None, None), _divergence(log_q, log_p, of_guide, of_model)
        cells = Cells(plates, of_guide["fn"].batch_shape, nesting)
        signal, shared = torch.zeros_like(kl), 0.0
        unscaled: list[dict[str, Tensor]] = [{}, {}]
        for sign, trace, own in ((1.0, model_trace, unscaled[0]), (-1.0, guide_trace, unscaled[1])):
            for name, node in self._sites(trace, guide_trace).items():
                of_cells = cells.summed(name, node, node["log_prob"])
                if of_cells is None:
                    self._check_outside(name, cells, model, guide, args, kwargs)
                    shared = shared + sign * node["log_prob"].sum()
                else:
                    signal = signal + sign * of_cells
                    own_terms = cells.summed(name, node, node["unscaled_log_prob"].detach())
                    assert own_terms is not None
                    own[name] = own_terms
        counted = cells.unmasked(of_guide["mask"], kl)
        return Evaluated(log_q, kl, weighted_kl, signal, counted, shared, *unscaled)

    def _check_outside(
        self, name: str, cells: Cells, model: Any, guide: Any, args: Any, kwargs: Mapping[str, Any]
    ) -> None:
        """Check, for the first site that is outside of y's plates, that none of these depends on y.

        What does has a dimension more where the programs are run with two labels of each row at once. Nothing is known
        of programs that cannot be run so.

        Raises:
            ValueError: If one does.
        """
        if self._is_checked:
            return
        self._is_checked = True

        def two_labels(log_q: Float[Tensor, "B K"]) -> tuple[Tensor, Tensor]:
            return torch.stack([one_label(log_q, y)[0] for y in (0, log_q.shape[-1] - 1)]), torch.ones_like(log_q[:, 0])

        with torch.no_grad(), torch.random.fork_rng(), LabelSite(self.site, two_labels, cells.nesting):
            try:
                traces = self._get_trace(model, guide, args, kwargs)
                sites = [site for trace in traces for site in self._sites(trace, traces[1]).items()]
            except (RuntimeError, ValueError, IndexError, TypeError):
                return
        for name, node in sites:
            if cells.is_outside(node) and node["log_prob"].numel() > 1:
                try:
                    cells.check_dimensions(name, node, node["log_prob"])
                except ValueError:
                    raise ValueError(outside_message(name)) from None

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        return poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs), guide_trace

    def _sites(self, trace: Trace, guide_trace: Trace) -> dict[str, dict[str, Any]]:
        """All other sample sites that have a log-probability, which is computed."""
        trace.compute_log_prob(lambda name, _: name != self.site)
        sites = {}
        for name, node in trace.nodes.items():
            if node["type"] != "sample" or "log_prob" not in node or poutine.util.site_is_subsample(node):
                continue
            latent = not node["is_observed"] and not node["infer"].get("_deterministic")
            if latent and trace is guide_trace and not node["fn"].has_rsample:
                raise ValueError(
                    f"the guide's site {name!r} must be reparameterized: only {self.site!r} may be discrete."
                )
            if latent and name not in guide_trace.nodes:
                raise ValueError(f"the model's latent site {name!r} is missing in the guide.")
            if not node["infer"].get("_deterministic"):
                sites[name] = node
        return sites


def log_probabilities(fn: Any, site: str) -> Float[Tensor, "*B K"]:
    """The log-probabilities of a Categorical, whatever it is wrapped in."""
    shape = fn.batch_shape
    while not hasattr(fn, "logits"):
        if not hasattr(fn, "base_dist"):
            raise ValueError(f"the site {site!r} must have a Categorical distribution, not {type(fn).__name__}.")
        fn = fn.base_dist
    logits = fn.logits.log_softmax(-1)
    return logits.expand(*(shape or (1,)), logits.shape[-1])


def _divergence(
    log_q: Float[Tensor, "B K"], log_p: Float[Tensor, "B K"], of_guide: Any, of_model: Any
) -> Float[Tensor, " B"]:
    """`sum_y q(y) (log q(y) - log p(y))`, where 0 log 0 is 0; with the scales and masks of two sites, if given."""
    possible = log_q > -torch.inf
    parts = []
    for log_prob, node in ((log_q, of_guide), (log_p, of_model)):
        finite = torch.where(possible, log_prob, 0.0)
        if node is not None:
            shape, mask, scale = node["fn"].batch_shape, node["mask"], node["scale"]
            by_cell = finite.reshape(*shape, -1).movedim(-1, 0)
            finite = scale_and_mask(by_cell, scale, mask).movedim(0, -1).reshape_as(finite)
        parts.append(finite)
    return (torch.where(possible, log_q, 0.0).exp() * possible * (parts[0] - parts[1])).sum(-1)


def averaged(sites: dict[str, Tensor], weights: Float[Tensor, "*S B"]) -> dict[str, Float[Tensor, " B"]]:
    """Log-probabilities of sites, averaged over labels with these weights."""
    return {name: weighed(weights, value).reshape(-1, weights.shape[-1]).sum(0) for name, value in sites.items()}


def weighed(weights: Float[Tensor, "*S B"], values: Float[Tensor, "*R B"]) -> Float[Tensor, "*T B"]:
    """The products of probabilities and values, of each label or of all, where 0 times minus infinity is 0."""
    return weights * torch.where(weights > 0, values, 0.0)


def one_label(log_q: Float[Tensor, "B K"], y: int) -> tuple[Float[Tensor, "B K"], Float[Tensor, " B"]]:
    """Vectors of this label, and its probability."""
    vectors = torch.zeros_like(log_q).index_fill_(-1, torch.tensor([y], device=log_q.device), 1.0)
    return vectors, log_q[:, y].detach().exp()
