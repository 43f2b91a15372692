"""Processes that train one model together in JAX, each with devices of its own: how they meet and part."""

import os
import sys
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from seqssvae.errors import ConfigurationError, UserError
from seqssvae.training.processes import Processes
from seqssvae_jax.sharing import Sharing

PATIENCE = 12 * 60 * 60
"""Seconds that one waits for another that is alive: the first may compare candidates meanwhile."""
HEARTBEAT = 30
"""Seconds after which a process that is silent has ended."""


class JaxProcesses(Processes):
    """The processes of JAX's distributed runtime."""

    backend = "jax"

    def __init__(self) -> None:
        self.rank, self.count, self.devices = jax.process_index(), jax.process_count(), jax.device_count()

    def any(self, flag: bool) -> bool:
        """Return whether a flag is set in one of them."""
        return bool(np.any(multihost_utils.process_allgather(np.array(flag))))

    def of_first(self, content: bytes) -> bytes:
        """Return what the first was called with."""
        size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
        padded = np.zeros(size, np.uint8)
        if self.rank == 0:
            padded[:] = np.frombuffer(content, np.uint8)
        return np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8).tobytes() if size else b""

    def has_lost(self, error: BaseException) -> bool:
        """Return whether an exception says that another of them has ended."""
        is_of_runtime = isinstance(error, (RuntimeError, ValueError)) and not isinstance(error, UserError)
        return is_of_runtime and any(word in str(error) for word in _LOST)

    def finish(self) -> None:
        """End the connection to the others."""
        jax.distributed.shutdown()

    def abandon(self, status: int) -> None:
        """End this process at once: its usual end would wait for the others."""
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(status)


_LOST = ("Gloo", "NCCL", "Connection closed", "Connection reset", "coordination service", "UNAVAILABLE")
"""Words of which one is in what JAX says where a process has ended."""


def sharing_of(devices: int, device: str | None = None) -> Sharing:
    """So many devices that share each batch.

    Raises:
        ConfigurationError: If there are not so many.
    """
    return Sharing(devices, device)


def join(device: str | None = None) -> JaxProcesses:
    """Meet the processes of which JAX_COORDINATOR_ADDRESS is the first one's.

    JAX_NUM_PROCESSES and JAX_PROCESS_ID say how many there are and which one this is, unless JAX finds it out itself,
    as it does where Slurm or Open MPI started them.

    Args:
        device: Name of the devices that they are to compute on.

    Raises:
        ConfigurationError: If these variables are wrong, or the others cannot be met.
    """
    if jax.distributed.is_initialized():  # by an earlier call, or by who wrote the program
        return JaxProcesses()
    count, place = os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID")
    try:
        if device is not None and device.partition(":")[0] == "cpu":
            jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.config.update("jax_enable_preemption_service", False)  # signals are noted by the command
        jax.distributed.initialize(
            num_processes=None if count is None else int(count),
            process_id=None if place is None else int(place),
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=PATIENCE,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"The processes that are to train together do not meet ({reason}).") from error
    return JaxProcesses()


def start(run: Callable[[Sequence[str]], int], arguments: Sequence[str], devices: int, device: str | None) -> None:
    """See to it that this process has so many devices, where that can be chosen: on a CPU, before JAX is used.

    Args:
        run: Runs the command; this process goes on with it itself.
        arguments: What it is called with.
        devices: How many devices.
        device: Name of the devices.
    """
    is_chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not is_chosen and (device is None or device.partition(":")[0] == "cpu"):
        try:
            jax.config.update("jax_num_cpu_devices", devices)
        except RuntimeError:  # JAX is in use: it has the devices that it has
            return
