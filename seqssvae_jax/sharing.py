"""How several devices compute one step: each of them its rows of the batch, with sums over the rows of all.

Weights are on every device. Rows are spread over the devices, with filler rows behind them where they do not come out
even. What the objective sums over a batch is summed over all devices (`total`), so that its loss is that of the whole
batch, however rows and labels are spread. A device has the gradient of its own rows; added up they are that of the
loss. The devices may be those of several processes, each of which runs the same program.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seqssvae.errors import ConfigurationError
from seqssvae.noise import row_axis
from seqssvae_jax.rows import Rows

ROWS = "rows"
"""The axis of the mesh along which rows are spread."""

_is_shared: ContextVar[bool] = ContextVar("is_shared", default=False)


def total(value: Array) -> Array:
    """The sum of a value, which is held fixed, over the devices that share the batch; of one device, the value itself.

    The gradient of what every device has of the loss is that of its own rows. A sum over devices would mix them.
    """
    return jax.lax.psum(jax.lax.stop_gradient(value), ROWS) if _is_shared.get() else value


class Sharing:
    """The devices that share each batch.

    Args:
        count: How many; 1: none but that of the run.
        platform: JAX's name of their platform; None: JAX's default.

    Raises:
        ConfigurationError: If there are not so many.
    """

    def __init__(self, count: int = 1, platform: str | None = None) -> None:
        self.count, self.mesh = count, None
        if count == 1:
            return
        devices = jax.devices(None if platform is None else platform.partition(":")[0])
        if len(devices) < count:
            raise ConfigurationError(
                f"JAX has {len(devices)} device{'s' if len(devices) > 1 else ''} of the platform "
                f"{devices[0].platform} here, not {count}; CPUs are as many as "
                f"jax.config.update('jax_num_cpu_devices', {count}) says before JAX is used."
            )
        self.mesh = Mesh(np.array(devices[:count]), ROWS)

    @property
    def options(self) -> dict[str, Any]:
        """Options of `jax.jit` for a program whose results every device is to have whole."""
        return {} if self.mesh is None else {"out_shardings": NamedSharding(self.mesh, PartitionSpec())}

    def everywhere(self, values: Any) -> Any:
        """The arrays of a tree, on every device."""
        return values if self.mesh is None else jax.device_put(values, NamedSharding(self.mesh, PartitionSpec()))

    def value_and_grad(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """`jax.value_and_grad(loss, has_aux=True)`, by all devices.

        Args:
            loss: A function of weights, two batches (or None) and more, which gives the loss, of which a device has
                the part of its rows, and for each batch a tree of arrays with an entry for each row.
        """

        def differentiate(
            weights: Any, labelled: Rows | None, unlabelled: Rows | None, *more: Any, **static: Any
        ) -> Any:
            def of_rows(given: Any, *batches: Rows | None) -> tuple[Any, tuple[Any, ...]]:
                weights, more = given
                differentiated = jax.value_and_grad(loss, has_aux=True)
                (value, terms), gradients = differentiated(weights, *batches, *more, **static)
                return (value, gradients), terms

            (value, gradients), terms = self.apply(of_rows, (weights, more), labelled, unlabelled)
            return (value, terms), gradients

        return differentiate

    def summed(self, function: Callable[[Any, Rows], Any], given: Any, rows: Rows) -> Any:
        """A tree of sums over rows; arguments as of `apply`."""
        return self.apply(lambda given, own: (function(given, own), ((),)), given, rows)[0]

    def per_row(self, function: Callable[[Any, Rows], Any], given: Any, rows: Rows) -> Any:
        """A tree of arrays with an entry for each row; arguments as of `apply`."""
        return self.apply(lambda given, own: ((), (function(given, own),)), given, rows)[1][0]

    def apply(self, function: Callable[..., Any], given: Any, *batches: Rows | None) -> Any:
        """A function of rows that gives arrays with an entry for each row, computed by each device for its rows.

        Args:
            function: Called with what is given and the rows of a device.
            given: A tree of arrays that every device has whole.
            batches: Rows, or None.

        Returns:
            What the function gives for the whole batches: of a pair, first a tree of sums, which are added up, and then
            for each batch a tree of arrays with an entry for each of its rows.
        """
        if self.mesh is None:
            return function(given, *batches)
        spread = [None if rows is None else self._filled_up(rows) for rows in batches]
        specs = [None if rows is None else _specs(rows) for rows in spread]

        def of_device(given: Any, *own: Rows | None) -> Any:
            with _shared():
                sums, of_rows = function(given, *own)
            return jax.lax.psum(sums, ROWS), of_rows

        everywhere, along_rows = PartitionSpec(), PartitionSpec(ROWS)
        program = jax.shard_map(
            of_device,
            mesh=self.mesh,
            in_specs=(everywhere, *specs),
            out_specs=(everywhere, along_rows),
            check_vma=False,  # sums over devices are all stated
        )
        sums, of_rows = program(given, *spread)
        sizes = [len(rows.row_mask) for rows in batches if rows is not None]
        return sums, tuple(_cut(padded, size) for padded, size in zip(of_rows, sizes, strict=True))

    def _filled_up(self, rows: Rows) -> Rows:
        """Rows, with filler rows behind them up to a multiple of the devices."""
        axes = _axes(rows)
        return jax.tree.map(lambda values, axis: self._padded(values, axis), rows, axes)

    def _padded(self, values: Array, axis: int) -> Array:
        """What filler rows have is 0: PAD, and False."""
        missing = -values.shape[axis] % self.count
        return jnp.pad(values, [(0, missing if place == axis else 0) for place in range(values.ndim)])


def _axes(rows: Rows) -> Rows:
    """Which dimension of each array of a batch is that of the rows."""
    first = jax.tree.map(lambda values: 0, rows)
    return first._replace(noise={name: row_axis(name, value.ndim) for name, value in rows.noise.items()})


def _specs(rows: Rows) -> Any:
    """How each array of a batch is spread over the devices."""
    return jax.tree.map(lambda axis: PartitionSpec(*[None] * axis, ROWS), _axes(rows))


def _cut(of_rows: Any, size: int) -> Any:
    """The arrays of a tree without what belongs to filler rows behind so many rows."""
    return jax.tree.map(lambda part: part[:size], of_rows)


@contextmanager
def _shared() -> Iterator[None]:
    token = _is_shared.set(True)
    try:
        yield
    finally:
        _is_shared.reset(token)
