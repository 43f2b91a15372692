"""Processes that train one model together in PyTorch, one for each device: how they start, meet and part."""

import os
import signal
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, multiprocessing

from seqssvae.errors import ConfigurationError
from seqssvae.training.processes import Processes, ProcessLost
from seqssvae_torch.sharing import ALONE, Sharing

PATIENCE = timedelta(hours=12)
"""How long one waits for another that is alive: the first may compare candidates meanwhile."""
GRACE = 10.0
"""Seconds that the others have to end by themselves when one has ended."""
WATCHED = "SEQSSVAE_WATCHED"
"""The variable that says that whoever started a process says so if another is lost."""
_met: dict[str, Any] = {}
"""The store by which the processes have met."""


class TorchProcesses(Processes):
    """The members of PyTorch's process group.

    Args:
        store: What all of them can write to, if there is such.
    """

    backend = "torch"

    def __init__(self, store: Any) -> None:
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
        self.devices, self._store = self.count, store

    def any(self, flag: bool) -> bool:
        """Return whether a flag is set in one of them."""
        greatest = torch.tensor(int(flag))
        distributed.all_reduce(greatest, distributed.ReduceOp.MAX)
        return bool(greatest)

    def of_first(self, content: bytes) -> bytes:
        """Return what the first was called with."""
        contents = [content]
        distributed.broadcast_object_list(contents, device=torch.device("cpu"))
        return contents[0]

    def speaks(self) -> bool:
        """Return whether this is the one to say what went wrong: the first that asks."""
        if self._store is None:
            return True
        try:
            return self._store.add("spoken", 1) == 1
        except (RuntimeError, distributed.DistError):  # what kept the store has ended
            return True

    def has_lost(self, error: BaseException) -> bool:
        """Return whether an exception says that another of them has ended."""
        is_of_gloo = isinstance(error, RuntimeError) and ("gloo" in str(error) or "Connection" in str(error))
        lost = is_of_gloo or isinstance(error, distributed.DistError)
        if lost and WATCHED in os.environ:
            self.speaks()  # once for all: what started them will say it
        return lost

    def finish(self) -> None:
        """End the connection to the others."""
        distributed.destroy_process_group()

    def device(self, name: str | None) -> str | None:
        """Return the name of this process's own device: `cuda` is `cuda:1` of the second of a machine."""
        name = _named(name)
        return f"{name}:{os.environ.get('LOCAL_RANK', '0')}" if name in ("cuda", "xpu") else name


def _named(device: str | None) -> str | None:
    """PyTorch's name of a device: JAX says gpu."""
    return None if device is None else device.replace("gpu", "cuda")


def join(device: str | None = None) -> TorchProcesses:
    """Meet the processes that torchrun started.

    Args:
        device: Name of the devices that they are to compute on.

    Raises:
        ConfigurationError: If the launcher's variables are wrong, or the others cannot be met.
    """
    if distributed.is_initialized():  # by an earlier call, or by who wrote the program
        return TorchProcesses(_met.get("store"))
    device = _named(device)
    backend = "cpu:gloo,cuda:nccl" if (device or "cpu").startswith("cuda") else "gloo"
    try:
        if (device or "") == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        store, rank, count = next(distributed.rendezvous("env://", timeout=timedelta(minutes=10)))
        store = distributed.PrefixStore("seqssvae", store)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"The processes that are to train together do not meet ({reason}).") from error
    _met["store"] = store
    return TorchProcesses(store)


def sharing_of(devices: int, device: str | None = None) -> Sharing:
    """The place of this process among so many that share each batch.

    Args:
        devices: How many; 1: it is alone.
        device: Name of the devices, of which a process has one.

    Raises:
        ConfigurationError: If there are not so many.
    """
    if devices == 1:
        return ALONE
    known = distributed.is_available() and distributed.is_initialized()
    count = distributed.get_world_size() if known else 1
    if count != devices:
        raise ConfigurationError(
            f"PyTorch computes on {devices} devices with a process for each, and of processes that have met there is "
            f"{count}: start {devices} by torchrun --nproc-per-node {devices}."
        )
    return Sharing(distributed.get_rank(), count)


def start(run: Callable[[Sequence[str]], int], arguments: Sequence[str], devices: int, device: str | None) -> int:
    """Run a command in processes of this machine, one for each device.

    Signals go to all of them. If one is killed, the others end as well.

    Args:
        run: Runs the command; it can be imported.
        arguments: What it is called with.
        devices: How many processes.
        device: Name of the devices.

    Returns:
        The exit status of the command.

    Raises:
        ConfigurationError: If there are not so many devices.
        ProcessLost: If a process was killed.
    """
    if (_named(device) or "cpu").startswith("cuda") and torch.cuda.device_count() < devices:
        raise ConfigurationError(
            f"--devices {devices} is more than the {torch.cuda.device_count()} GPUs that are here."
        )
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    given = run, list(arguments), devices, store.port
    context: Any = multiprocessing.start_processes(_run_one, given, devices, join=False, start_method="spawn")
    before = {number: signal.signal(number, _pass_on(context)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not context.join(grace_period=GRACE):
            pass
    except (multiprocessing.ProcessExitedException, multiprocessing.ProcessRaisedException):
        pass  # the exit codes tell
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    codes = [process.exitcode for process in context.processes]
    for rank, code in enumerate(codes):
        if code < 0 and code != -signal.SIGTERM:
            name = signal.Signals(-code).name
            raise ProcessLost(f"process {rank + 1} of the {devices} that train together was ended by {name}")
    return next((code for code in codes if code), 0)


def _run_one(rank: int, run: Callable[..., int], arguments: list[str], count: int, port: int) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # what a terminal sends to its processes comes once, by way of the one that started this
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # the store is kept by the process that started these
    os.environ[WATCHED] = "1"
    raise SystemExit(run(arguments))


def _pass_on(context: Any) -> Callable[..., None]:
    def handle(number: int, frame: Any) -> None:
        for process in context.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    return handle
