"""What the objectives have in common that choose which labels a program is run with.

They go with NumPyro models and guides that have one discrete latent variable y a row, such as

    def guide(x):
        with numpyro.plate("rows", len(x)):
            y = one_hot(numpyro.sample("y", Categorical(logits=classifier(x))), K)
            numpyro.sample("z", Normal(*encoder(x, y)).to_event(1))

of which this is asked:

- y has a `Categorical` distribution, whose value the program turns into vectors by `one_hot`, in the guide and in the
  model, within the same plates;
- what depends on y is within these plates, and maybe in further ones;
- what depends on y broadcasts over dimensions in front: the programs are run with vectors of shape `(B, K)`, or of
  shape `(S, B, K)` for S labels of each row at once, whose first dimension is in front of those of all plates;
- the other latent variables of the guide are reparameterized, and the model has no others than the guide.

Plates may be nested, subsampled, beside or around that of the rows; scales, masks and factors count as they do in
NumPyro. With f(x, y) all log-probabilities within y's plates but those of y, summed over further plates, the ELBO of a
row is

    U(x) = sum_y q(y|x) f(x, y) - KL(q(y|x) || p(y))

whose second part is exact in all of these objectives; they differ in what they make of the first. What is outside of
y's plates is added once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray
from numpyro import handlers
from numpyro.infer.elbo import ELBO
from numpyro.primitives import Messenger

from seqssvae_jax.handlers import GradientWeights
from seqssvae_jax.label_cells import Cells, mask_of, outside_message, plates_of

Choice = Callable[[Float[Array, "B K"]], tuple[Array, Array]]


class Estimate(NamedTuple):
    """An objective's value and its parts.

    Args:
        loss: Minus the ELBO, with the gradient that is to be followed.
        model: log-probabilities of the model's other sites by name: of each row, averaged over labels, without scale.
        guide: The same of the guide.
        kl: KL(q(y|x) || p(y)) of each row, without scale.
    """

    loss: Float[Array, ""]
    model: dict[str, Float[Array, " B"]]
    guide: dict[str, Float[Array, " B"]]
    kl: Float[Array, " B"]


class LabelSite(Messenger):
    """Sets the value of the discrete site, as a function of its log-probabilities.

    Args:
        fn: A guide.
        site: Its name.
        choose: Returns the value, as one-hot vectors of shape `(B, K)` or `(S, B, K)`, and by what the
            log-probabilities of what depends on it will be multiplied.
        nesting: How many dimensions the plates of the programs take.
    """

    def __init__(self, fn: Any, site: str, choose: Choice, nesting: int) -> None:
        super().__init__(fn)
        self.site, self.choose, self.nesting = site, choose, nesting
        self.log_q: Array | None = None
        self.weights: Array | None = None

    def process_message(self, msg: dict[str, Any]) -> None:
        """Called for each site before it has a value."""
        if msg["type"] == "sample" and msg["name"] == self.site:
            shape, log_q = msg["fn"].batch_shape, log_probabilities(msg["fn"], self.site)
            self.log_q = log_q.reshape(-1, log_q.shape[-1])
            vectors, self.weights = self.choose(self.log_q)
            labels = () if vectors.ndim == 2 else (len(vectors), *[1] * (self.nesting - len(shape)))
            msg["value"] = vectors.reshape(*labels, *shape, vectors.shape[-1])

    def log_probabilities(self) -> Float[Array, "B K"]:
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

    log_q: Float[Array, "B K"]
    kl: Float[Array, " B"]
    weighted_kl: Float[Array, " B"]
    signal: Float[Array, "*S B"]
    counted: Float[Array, " B"]
    shared: Any
    model: dict[str, Array]
    guide: dict[str, Array]


class LabelELBO(ELBO, ABC):
    """What these objectives have in common.

    Args:
        site: Name of the discrete site.
        max_plate_nesting: How many dimensions the plates of the programs take; None: it is found by tracing them once.
    """

    can_infer_discrete = True

    def __init__(self, site: str = "y", max_plate_nesting: int | None = None) -> None:
        super().__init__()
        self.site, self.max_plate_nesting = site, max_plate_nesting
        self._is_checked = False

    @abstractmethod
    def estimate(
        self, rng_key: PRNGKeyArray, param_map: Mapping[str, Any], model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> Estimate:
        """The objective on these arguments of model and guide, and its parts.

        Raises:
            ValueError: If the programs are not as this module asks for.
        """

    def loss_with_mutable_state(
        self, rng_key: PRNGKeyArray, param_map: Any, model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Minus the ELBO, as NumPyro's `SVI` asks for it. Programs with mutable state are not for these objectives."""
        loss = self.estimate(rng_key, param_map, model, guide, *args, **kwargs).loss
        return {"loss": loss, "mutable_state": None}

    def _nesting(
        self, param_map: Mapping[str, Any], model: Any, guide: Any, args: Any, kwargs: Mapping[str, Any]
    ) -> int:
        if self.max_plate_nesting is None:
            dims = [0]

            def trace() -> None:
                with handlers.block():
                    traces = _traces(jax.random.key(0), param_map, model, guide, args, kwargs)
                sites = (site for trace in traces for site in trace.values() if site["type"] == "sample")
                dims.extend(dim for site in sites for dim in plates_of(site))

            jax.eval_shape(trace)
            self.max_plate_nesting = -min(dims)
        return self.max_plate_nesting

    def _run(
        self,
        rng_key: PRNGKeyArray,
        param_map: Mapping[str, Any],
        model: Any,
        guide: Any,
        args: Any,
        kwargs: Mapping[str, Any],
        choose: Choice,
    ) -> Evaluated:
        """The programs, with the labels that are chosen."""
        nesting = self._nesting(param_map, model, guide, args, kwargs)
        given = LabelSite(guide, self.site, choose, nesting)

        def told(*args: Any, **kwargs: Any) -> Any:
            given.log_probabilities()
            assert given.weights is not None
            return GradientWeights(model, given.weights)(*args, **kwargs)

        model_trace, guide_trace = _traces(rng_key, param_map, told, given, args, kwargs)
        log_q = given.log_probabilities()
        if self.site not in model_trace:
            raise ValueError(f"the model has no sample site {self.site!r}, which the guide has.")
        of_guide, of_model = guide_trace[self.site], model_trace[self.site]
        plates = plates_of(of_guide)
        if plates_of(of_model) != plates:
            raise ValueError(f"the site {self.site!r} must be within the same plates in the model and in the guide.")
        log_p = log_probabilities(of_model["fn"], self.site).reshape(-1, log_q.shape[-1])
        kl, weighted_kl = _divergence(log_q, log_p, None, None), _divergence(log_q, log_p, of_guide, of_model)
        cells = Cells(plates, of_guide["fn"].batch_shape, nesting)
        signal, shared = jnp.zeros_like(kl), 0.0
        unscaled: list[dict[str, Array]] = [{}, {}]
        for sign, trace, own in ((1.0, model_trace, unscaled[0]), (-1.0, guide_trace, unscaled[1])):
            for name, site in self._sites(trace, guide_trace).items():
                log_prob = site["fn"].log_prob(site["value"])
                of_cells = cells.summed(name, site, _scale(site) * log_prob)
                if of_cells is None:
                    self._check_outside(name, cells, rng_key, param_map, model, guide, args, kwargs)
                    shared = shared + sign * (_scale(site) * log_prob).sum()
                else:
                    signal = signal + sign * of_cells
                    own_terms = cells.summed(name, site, jax.lax.stop_gradient(log_prob))
                    assert own_terms is not None
                    own[name] = own_terms
        counted = cells.unmasked(mask_of(of_guide["fn"]), kl)
        return Evaluated(log_q, kl, weighted_kl, signal, counted, shared, *unscaled)

    def _check_outside(self, name: str, cells: Cells, *given: Any) -> None:
        """Check, for the first site that is outside of y's plates, that none of these depends on y.

        What does has a dimension more where the programs are traced with two labels of each row at once. Nothing is
        known of programs that cannot be traced so.

        Args:
            name: The site's name.
            cells: The places of y.
            given: Key, parameters, model, guide, and their arguments.

        Raises:
            ValueError: If one does.
        """
        if self._is_checked:
            return
        self._is_checked = True
        rng_key, param_map, model, guide, args, kwargs = given

        def two_labels(log_q: Float[Array, "B K"]) -> tuple[Array, Array]:
            return jnp.stack([one_label(log_q, y)[0] for y in (0, log_q.shape[-1] - 1)]), jnp.ones_like(log_q[:, 0])

        outside: dict[str, tuple[Any, Any]] = {}

        def trace() -> None:
            with handlers.block():
                both = LabelSite(guide, self.site, two_labels, cells.nesting)
                traces = _traces(rng_key, param_map, model, both, args, kwargs)
                for of_one in traces:
                    for name, site in self._sites(of_one, traces[1]).items():
                        if cells.is_outside(site):
                            outside[name] = site, jax.eval_shape(site["fn"].log_prob, site["value"])

        try:
            jax.eval_shape(trace)
        except (RuntimeError, ValueError, IndexError, TypeError):
            return
        for name, (site, log_prob) in outside.items():
            if log_prob.size > 1:
                try:
                    cells.check_dimensions(name, site, log_prob)
                except ValueError:
                    raise ValueError(outside_message(name)) from None

    def _sites(self, trace: Mapping[str, Any], guide_trace: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """All other sample sites."""
        sites = {}
        for name, site in trace.items():
            if site["type"] != "sample" or name == self.site:
                continue
            if not site["is_observed"] and trace is guide_trace and not site["fn"].has_rsample:
                raise ValueError(
                    f"the guide's site {name!r} must be reparameterized: only {self.site!r} may be discrete."
                )
            if not site["is_observed"] and name not in guide_trace:
                raise ValueError(f"the model's latent site {name!r} is missing in the guide.")
            sites[name] = site
        return sites


def log_probabilities(fn: Any, site: str) -> Float[Array, "*B K"]:
    """The log-probabilities of a Categorical, whatever it is wrapped in."""
    shape = fn.batch_shape
    while not hasattr(fn, "logits"):
        if not hasattr(fn, "base_dist"):
            raise ValueError(f"the site {site!r} must have a Categorical distribution, not {type(fn).__name__}.")
        fn = fn.base_dist
    logits = jax.nn.log_softmax(fn.logits)
    return jnp.broadcast_to(logits, (*(shape or (1,)), logits.shape[-1]))


def _divergence(
    log_q: Float[Array, "B K"], log_p: Float[Array, "B K"], of_guide: Any, of_model: Any
) -> Float[Array, " B"]:
    """`sum_y q(y) (log q(y) - log p(y))`, where 0 log 0 is 0; with the scales and masks of two sites, if given."""
    possible = log_q > -jnp.inf
    parts = []
    for log_prob, site in ((log_q, of_guide), (log_p, of_model)):
        finite = jnp.where(possible, log_prob, 0.0)
        if site is not None:
            by_cell = jnp.moveaxis(finite.reshape(*site["fn"].batch_shape, -1), -1, 0)
            mask = mask_of(site["fn"])
            by_cell = _scale(site) * (by_cell if mask is None else jnp.where(mask, by_cell, 0.0))
            finite = jnp.moveaxis(by_cell, 0, -1).reshape(finite.shape)
        parts.append(finite)
    return (jnp.exp(jnp.where(possible, log_q, 0.0)) * possible * (parts[0] - parts[1])).sum(-1)


def averaged(sites: dict[str, Array], weights: Float[Array, "*S B"]) -> dict[str, Float[Array, " B"]]:
    """Log-probabilities of sites, averaged over labels with these weights."""
    return {name: weighed(weights, value).reshape(-1, weights.shape[-1]).sum(0) for name, value in sites.items()}


def weighed(weights: Float[Array, "*S B"], values: Float[Array, "*R B"]) -> Float[Array, "*T B"]:
    """The products of probabilities and values, of each label or of all, where 0 times minus infinity is 0."""
    return weights * jnp.where(weights > 0, values, 0.0)


def one_label(log_q: Float[Array, "B K"], y: Int[Array, ""] | int) -> tuple[Float[Array, "B K"], Float[Array, " B"]]:
    """Vectors of this label, and its probability."""
    vectors = jnp.broadcast_to(jax.nn.one_hot(y, log_q.shape[-1], dtype=log_q.dtype), log_q.shape)
    return vectors, jax.lax.stop_gradient(jnp.exp(log_q[:, y]))


def _traces(
    rng_key: PRNGKeyArray, param_map: Mapping[str, Any], model: Any, guide: Any, args: Any, kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the model, replayed against the guide, and of the guide."""
    model_key, guide_key = jax.random.split(rng_key)
    seeded = handlers.substitute(handlers.seed(guide, guide_key), data=param_map)
    guide_trace = handlers.trace(seeded).get_trace(*args, **kwargs)
    seeded = handlers.substitute(handlers.seed(model, model_key), data=param_map)
    return handlers.trace(handlers.replay(seeded, guide_trace)).get_trace(*args, **kwargs), guide_trace


def _scale(site: Mapping[str, Any]) -> Any:
    return 1.0 if site["scale"] is None else site["scale"]
