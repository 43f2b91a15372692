"""The processes that train one model together, each its share of every batch."""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from seqssvae.errors import ConfigurationError, UserError

RANKS = {"torch": "RANK", "jax": "JAX_PROCESS_ID"}
"""The variable in which a launcher says which of the processes one is, by the twin that it starts."""


class Processes:
    """This process by itself; of a twin's own class, its place among several.

    Attributes:
        rank: Which of them it is, from 0. The first writes the run and says what there is to say.
        count: How many there are.
        devices: How many devices they have together.
        backend: Name of the twin that they can train; None: any.
    """

    rank: int = 0
    count: int = 1
    devices: int = 1
    backend: str | None = None

    def any(self, flag: bool) -> bool:
        """Return whether a flag is set in one of them. To be called by all, as the other questions to all are."""
        return flag

    def of_first(self, content: bytes) -> bytes:
        """Return what the first was called with."""
        return content

    def speaks(self) -> bool:
        """Return whether this is the one to say what went wrong: the first that asks."""
        return True

    def has_lost(self, error: BaseException) -> bool:
        """Return whether an exception says that another of them has ended."""
        return False

    def finish(self) -> None:
        """End the connection to the others, when all have done their work."""

    def abandon(self, status: int) -> None:
        """End this process with a status at once, if its usual end would wait for the others."""

    def device(self, name: str | None) -> str | None:
        """Return the name of this process's own device, of the name of all."""
        return name

    def check_same(self, what: Mapping[str, bytes]) -> None:
        """Check that all have the same.

        Args:
            what: What they have, by the words for it.

        Raises:
            ConfigurationError: If they have not.
        """
        for name, content in what.items():
            digest = hashlib.blake2b(content, digest_size=16).digest()
            if self.any(self.of_first(digest) != digest):
                raise ConfigurationError(f"The processes that train together do not have the same {name}.")


ALONE = Processes()


class ProcessLost(UserError):
    """Another process that shares in the training has ended."""


def launched_for() -> str | None:
    """The twin for which a launcher has started this process among others; None if there are no others.

    For PyTorch it is torchrun, or another that sets the same variables; for JAX whatever sets JAX_COORDINATOR_ADDRESS.
    """
    if os.environ.get("JAX_COORDINATOR_ADDRESS"):
        return "jax"
    if os.environ.get("WORLD_SIZE", "1") != "1" and {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return "torch"
    return None


def is_first() -> bool:
    """Return whether the environment says of no other process that it comes before this one."""
    name = launched_for()
    return name is None or os.environ.get(RANKS[name], "0") == "0"


def join_processes(device: str | None = None) -> Processes:
    """Meet the processes that a launcher has started beside this one.

    Args:
        device: Name of the devices that they are to compute on.

    Raises:
        ConfigurationError: If the launcher's variables are wrong.
    """
    name = launched_for()
    return ALONE if name is None else twin_module(name).join(device)


def join_for(backend: str, devices: int | None, device: str | None = None) -> Processes:
    """Meet the others that are to train together on so many devices; this process is alone where none are asked for.

    Args:
        backend: Name of the twin that is to be trained.
        devices: How many devices are to share each batch; None: one.
        device: Name of the devices.

    Raises:
        ConfigurationError: If the processes that have met cannot do that.
    """
    if devices in (None, 1):
        return ALONE
    processes = join_processes(device)
    devices_of(processes, backend, devices)
    twin_module(backend).sharing_of(devices, device)
    return processes


def devices_of(processes: Processes, backend: str, asked: int | None = None) -> int:
    """The number of devices that share each batch.

    Args:
        processes: The processes.
        backend: Name of the twin that is to be trained.
        asked: The number asked for; None: all that these processes have.

    Raises:
        ConfigurationError: If the processes were started for another twin, or cannot have so many devices.
    """
    if processes.backend not in (None, backend):
        raise ConfigurationError(
            f"The variables of the environment ({RANKS[str(processes.backend)]} among them) are of a launcher for "
            f"{processes.backend} and cannot train the backend {backend}."
        )
    if asked is None:
        return processes.devices
    if asked < 1 or (processes.count > 1 and asked != processes.devices):
        allowed = "at least 1" if processes.count == 1 else f"{processes.devices}, as many as the processes have"
        raise ConfigurationError(f"The number of devices must be {allowed}, not {asked}.")
    return asked


def twin_module(name: str) -> Any:
    """The module `processes` of a twin.

    Raises:
        BackendError: If there is no such twin.
        ConfigurationError: If it computes on one device alone.
    """
    from seqssvae.backend import get_backend  # which the help does not need

    kind = get_backend(name)
    module = getattr(kind, "processes", None)
    if module is None:
        raise ConfigurationError(f"The backend {name!r} computes on one device alone: leave out --devices.")
    return module
