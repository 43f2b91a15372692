"""Where compiled programs are kept between processes, who hears of a compilation, and what memory it leaves."""

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import jax

from seqssvae.errors import ConfigurationError
from seqssvae.runs.cache import compilation_cache
from seqssvae.training.allocation import return_freed_memory

_LEAST_SECONDS = 1.0
"""Programs that compile faster are not worth a file, and leave little memory behind."""


def set_up_compilation() -> None:
    """What a process needs before it compiles a program; it may be called more than once."""
    use_cache()
    trim_after_compilations()


@cache
def trim_after_compilations() -> None:
    """Have what compilations of this process free returned to the kernel, where the process keeps what it frees."""

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration" and duration_secs >= _LEAST_SECONDS:
            return_freed_memory()

    jax.monitoring.register_event_duration_secs_listener(listen)


def use_cache() -> None:
    """Keep compiled programs in the directory of `compilation_cache`, unless JAX's own configuration names one."""
    known = jax.config.values["jax_compilation_cache_dir"]
    if known is not None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    directory = compilation_cache()
    if directory is not None:
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)


def device_named(name: str | None) -> Any:
    """A device by the name of JAX's platform, maybe with a number, such as `cuda:1`; None for JAX's default.

    Raises:
        ConfigurationError: If there is none.
    """
    if name is None:
        return None
    platform, _, number = name.partition(":")
    try:
        return jax.local_devices(backend=platform)[int(number or 0)]
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"JAX has no device {name!r} here ({reason}): try cpu.") from error


def compiler_options(platform: str, deterministic: bool) -> dict[str, Any] | None:
    """Options of XLA for a training step: on a GPU, sums in one order, so that bits are the same."""
    return {"xla_gpu_deterministic_ops": True} if deterministic and platform == "gpu" else None


class Announcer:
    """Tells a listener of each program before it is compiled: once for each name and shape of its inputs."""

    def __init__(self) -> None:
        self.listener: Callable[[str], None] = lambda _: None
        self._known: set[tuple[str, Any]] = set()

    def __call__(self, name: str, *batches: Any) -> None:
        """Called before a program is; `batches` are those it gets, None for those it does not."""
        shapes = tuple(None if batch is None else (*batch.x.shape, batch.source_steps) for batch in batches)
        if (name, shapes) not in self._known:
            self._known.add((name, shapes))
            given = (shape for shape in shapes if shape is not None)
            sizes = " and ".join(f"{rows} x {f'({steps} + {of})' if of else steps}" for rows, steps, of in given)
            self.listener(f"compiling {name} for {sizes} symbols")
