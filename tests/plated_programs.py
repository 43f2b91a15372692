"""Programs with plates, factors, masks and scales of all kinds, in Pyro and in NumPyro, for objectives to solve."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as ndist
import pyro
import pyro.distributions as pdist
import torch
from hypothesis import strategies as st
from numpyro import handlers
from numpyro.infer import TraceEnum_ELBO as NumPyroTraceEnum
from pyro import poutine
from pyro.infer import TraceEnum_ELBO as PyroTraceEnum
from pyro.infer import config_enumerate

from seqssvae_jax import gradient_estimators as in_jax
from seqssvae_torch import gradient_estimators as in_torch

K = 3
PARAMETERS = ("logits", "centres", "shift")


@dataclass(frozen=True)
class Program:
    """What a model and its guide are like.

    Args:
        rows: Size of the plate of rows, which is that of dimension -1; 0 where y is in no plate.
        words: Size of a plate within it, with an observation of each word; 0 for none.
        word_latents: Whether each word has a latent variable.
        documents: Size of a plate around the rows, in which y is as well; 0 for none.
        sibling: Size of a plate beside it, with observations of its own; 0 for none.
        is_global: Whether a latent variable is outside of all plates.
        factor: Whether a factor depends on y, and another is outside of all plates.
        mask: Whether some rows do not count: of the observations; and of all sites within the plates.
        label_mask: Whether they do not count of y alone.
        scale: Of z, and of y.
        subsampled: Whether the rows are half of those that there are.
        shared: Whether q(y) is the same for all rows.
        impossible: Whether one label has q(y) = 0.
        ruled_out: Whether it has a likelihood of 0 as well.
        depends: Whether anything depends on y.
    """

    rows: int = 2
    words: int = 0
    word_latents: bool = False
    documents: int = 0
    sibling: int = 0
    is_global: bool = False
    factor: bool = False
    mask: tuple[bool, bool] = (False, False)
    label_mask: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    subsampled: bool = False
    shared: bool = False
    impossible: bool = False
    ruled_out: bool = False
    depends: bool = True

    @property
    def cells(self) -> tuple[int, ...]:
        """Batch shape of y."""
        if not self.rows:
            return ()
        return (self.documents, self.rows) if self.documents else (self.rows,)

    @property
    def nesting(self) -> int:
        """Dimensions that the plates take."""
        return max(len(self.cells) + bool(self.words), bool(self.sibling))


PROGRAMS = st.builds(
    Program,
    rows=st.sampled_from((0, 1, 2, K)),
    words=st.sampled_from((0, 1, 2, K)),
    word_latents=st.booleans(),
    documents=st.sampled_from((0, 0, 1, 2)),
    sibling=st.sampled_from((0, 1, 4)),
    is_global=st.booleans(),
    factor=st.booleans(),
    mask=st.tuples(st.booleans(), st.booleans()),
    label_mask=st.booleans(),
    scale=st.sampled_from(((1.0, 1.0), (0.3, 1.0), (0.5, 2.0))),
    subsampled=st.booleans(),
    shared=st.booleans(),
    impossible=st.booleans(),
    ruled_out=st.booleans(),
    depends=st.sampled_from((True, True, False)),
)


def data(program: Program) -> dict[str, np.ndarray]:
    """Parameters and observations."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(K,) if program.shared else (*program.cells, K))
    if program.impossible:
        logits[..., 1] = -np.inf
    return {
        "logits": logits,
        "centres": generator.normal(size=K),
        "shift": generator.normal(size=K),
        "x": generator.normal(size=(*((program.words,) if program.words else ()), *program.cells)),
        "noise": generator.normal(size=(K, *program.cells)),
        "others": generator.normal(size=max(program.sibling, 1)),
        "mask": np.arange(np.prod(program.cells)).reshape(program.cells) % 2 == 0,
    }


def programs(program: Program, values: dict[str, Any], ppl: Any) -> tuple[Callable[[], None], Callable[[], None]]:
    """Model and guide; `ppl` has what is named otherwise in Pyro and in NumPyro."""
    d, sample = ppl.dist, ppl.sample

    def in_plates(inner: Callable[[], None], words: Callable[[], None] | None) -> None:
        if not program.rows:
            inner()
            if words and program.words:
                with ppl.plate("words", program.words, program.words, dim=-1):
                    words()
            return
        size = 2 * program.rows if program.subsampled else program.rows
        rows = ppl.plate("rows", size, program.rows, dim=-1)
        if program.documents:
            with ppl.plate("documents", program.documents, program.documents, dim=-2), rows:
                inner()
                if words and program.words:
                    with ppl.plate("words", program.words, program.words, dim=-3):
                        words()
            return
        with rows:
            inner()
            if words and program.words:
                with ppl.plate("words", program.words, program.words, dim=-2):
                    words()

    whole = values["mask"] if program.mask[1] else True
    of_label = values["mask"] if program.label_mask else True

    def one_hot(y: Any) -> Any:
        return ppl.one_hot(y) if program.depends else ppl.array(np.eye(K)[0])

    def model() -> None:
        shared = sample("global", d.Normal(ppl.number(0.0), 1.0)) if program.is_global else 0.0
        if program.factor:
            ppl.factor("outside", 0.7 * values["centres"].sum())
        if program.sibling:
            with ppl.plate("sibling", program.sibling, program.sibling, dim=-1):
                sample("others", d.Normal(values["centres"][0] + shared, 1.0), obs=values["others"])
        kept: dict[str, Any] = {}

        def inner() -> None:
            with ppl.mask(whole):
                with ppl.scale(program.scale[1]), ppl.mask(of_label):
                    y = sample("y", d.Categorical(logits=ppl.array(np.log([0.5, 0.3, 0.2]))))
                if program.impossible and program.ruled_out:
                    ppl.factor("ruled out", ppl.where(ppl.one_hot(y)[..., 1] > 0, -np.inf, 0.0))
                y = kept["y"] = one_hot(y)
                with ppl.scale(program.scale[0]):
                    z = kept["z"] = sample("z", d.Normal(y @ values["shift"], 1.3))
                if program.factor:
                    ppl.factor("inside", 0.1 * (y @ values["centres"]) * z)
                if not program.words:
                    observe(z)

        def observe(loc: Any) -> None:
            with ppl.mask(values["mask"] if program.mask[0] else True):
                sample("x", d.Normal(kept["y"] @ values["centres"] + loc + shared, 1.0), obs=values["x"])

        def words() -> None:
            with ppl.mask(whole):
                loc = kept["z"]
                if program.word_latents:
                    loc = loc + sample("v", d.Normal(kept["y"] @ values["shift"], 1.0))
                observe(loc)

        in_plates(inner, words)

    def guide() -> None:
        if program.is_global:
            ppl.delta("global", d.Normal(values["shift"][0], 0.5), values["shift"][0] + 0.2)
        kept: dict[str, Any] = {}

        def inner() -> None:
            with ppl.mask(whole):
                with ppl.scale(program.scale[1]), ppl.mask(of_label):
                    y = sample("y", d.Categorical(logits=values["logits"], validate_args=False), **ppl.enumerated)
                y = kept["y"] = one_hot(y)
                with ppl.scale(program.scale[0]):
                    loc = y @ values["shift"]
                    ppl.delta("z", d.Normal(loc, 0.7), loc + 0.7 * ppl.of_label(values["noise"], y))

        def words() -> None:
            if program.word_latents:
                with ppl.mask(whole):
                    loc = kept["y"] @ values["centres"]
                    ppl.delta("v", d.Normal(loc, 0.6), ppl.expand(loc + 0.1, values["x"]))

        in_plates(inner, words)

    return model, guide


def _of_label(noise: Any, y: Any) -> Any:
    """The noise of the labels that y has, with what dimensions it has in front of those of plates."""
    return sum(y[..., k] * noise[k] for k in range(K))


class OfPyro:
    """Names of Pyro."""

    dist, sample = pdist, staticmethod(pyro.sample)
    enumerated: ClassVar[dict[str, Any]] = {}
    number = staticmethod(lambda value: torch.tensor(value, dtype=torch.float64))
    array, of_label = staticmethod(torch.tensor), staticmethod(_of_label)
    where = staticmethod(lambda mask, yes, no: torch.where(mask, yes, no).double())

    @staticmethod
    def mask(mask: Any) -> Any:
        return poutine.mask(mask=mask)

    @staticmethod
    def scale(scale: float) -> Any:
        return poutine.scale(scale=scale)

    @staticmethod
    def factor(name: str, value: Any) -> None:
        pyro.factor(name, value)

    @staticmethod
    def plate(name: str, size: int, subsample: int, dim: int) -> Any:
        return pyro.plate(name, size, subsample=torch.arange(subsample), dim=dim)

    @staticmethod
    def delta(name: str, fn: Any, value: torch.Tensor) -> None:
        """A reparameterized draw whose value is given."""
        value = value.expand(torch.broadcast_shapes(fn.batch_shape, value.shape))
        pyro.sample(name, pdist.Delta(value, log_density=fn.log_prob(value)))

    @staticmethod
    def one_hot(y: torch.Tensor) -> torch.Tensor:
        return in_torch.one_hot(y, K, torch.float64)

    @staticmethod
    def expand(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return value.expand(torch.broadcast_shapes(value.shape, like.shape))


class OfNumPyro:
    """Names of NumPyro."""

    dist, sample = ndist, staticmethod(numpyro.sample)
    enumerated: ClassVar[dict[str, Any]] = {"infer": {"enumerate": "parallel"}}
    number, array, where = staticmethod(jnp.asarray), staticmethod(jnp.asarray), staticmethod(jnp.where)

    @staticmethod
    def mask(mask: Any) -> Any:
        return handlers.mask(mask=mask)

    @staticmethod
    def scale(scale: float) -> Any:
        return handlers.scale(scale=scale)

    @staticmethod
    def factor(name: str, value: Any) -> None:
        numpyro.factor(name, value)

    @staticmethod
    def plate(name: str, size: int, subsample: int, dim: int) -> Any:
        return numpyro.plate(name, size, subsample_size=subsample, dim=dim)

    @staticmethod
    def delta(name: str, fn: Any, value: jax.Array) -> None:
        value = jnp.broadcast_to(value, jnp.broadcast_shapes(fn.batch_shape, value.shape))
        numpyro.sample(name, ndist.Delta(value, log_density=fn.log_prob(value)))

    @staticmethod
    def one_hot(y: jax.Array) -> jax.Array:
        return in_jax.one_hot(y, K, jnp.float64)

    of_label = staticmethod(_of_label)

    @staticmethod
    def expand(value: jax.Array, like: jax.Array) -> jax.Array:
        return jnp.broadcast_to(value, jnp.broadcast_shapes(value.shape, like.shape))


def solve_torch(program: Program, objective: Callable[[Any], Any]) -> tuple[float, list[np.ndarray]]:
    """Loss and gradients of an objective, of the module of objectives; None for `TraceEnum_ELBO`."""
    values = {name: torch.tensor(value) for name, value in data(program).items()}
    leaves = [values[name].requires_grad_() for name in PARAMETERS]
    model, guide = programs(program, values, OfPyro)
    elbo = objective(in_torch)
    if elbo is None:
        elbo, guide = PyroTraceEnum(max_plate_nesting=program.nesting), config_enumerate(guide, "parallel")
    elif isinstance(elbo, in_torch.SequentialELBO):
        elbo.parameters = leaves  # which the programs do not declare
    loss = elbo.differentiable_loss(model, guide)
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return float(loss.detach()), [gradient.numpy() for gradient in gradients]


def solve_jax(program: Program, objective: Callable[[Any], Any]) -> tuple[float, list[np.ndarray]]:
    with jax.enable_x64(True):
        values = {name: jnp.asarray(value) for name, value in data(program).items()}

        def loss_of(leaves: list[jax.Array]) -> jax.Array:
            model, guide = programs(program, values | dict(zip(PARAMETERS, leaves, strict=True)), OfNumPyro)
            elbo = objective(in_jax) or NumPyroTraceEnum(max_plate_nesting=program.nesting)
            return elbo.loss(jax.random.key(0), {}, model, guide)

        loss, gradients = jax.jit(jax.value_and_grad(loss_of))([values[name] for name in PARAMETERS])
        return float(loss), [np.asarray(gradient) for gradient in gradients]
