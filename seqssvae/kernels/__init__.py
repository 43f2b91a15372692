"""What is around bfloat16 products, for processors that have instructions for them, written in C.

That is recurrent layers, products included, and what an output layer makes of its logits. Kernels are compiled when the
package is installed, where there is a C compiler, and otherwise missing: then operations of the frameworks compute the
same, with other roundings. `recurrence.h` and `likelihood.h` say what they compute, and how it lies in memory.
"""

import ctypes
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

KEPT = {"gru": (2, 2, 2, 2), "lstm": (2, 2, 2, 2, 4)}
"""How many bytes each of the numbers of a unit has that are kept of every step for the gradient."""

_POINTER = ctypes.c_void_p


class _Shape(ctypes.Structure):
    _fields_ = (
        *[(name, ctypes.c_int32) for name in ("lstm", "layers", "steps", "size", "columns", "rows")],
        ("stride", ctypes.c_int64),
        ("threads", ctypes.c_int32),
        ("team", _POINTER),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        ("row_gates", _POINTER),
        ("constant", _POINTER),
        ("first", _POINTER * 2),
        ("weight", _POINTER),
        ("bias_n", _POINTER),
        ("outputs", _POINTER),
        ("kept", _POINTER * 5),
        ("grad_outputs", _POINTER),
        ("grad_columns", _POINTER),
        ("grad_candidate", _POINTER),
        ("states", _POINTER),
        ("grad_rows", _POINTER),
        ("grad_constant", _POINTER),
        ("grad_first", _POINTER * 2),
        ("grad_bias", _POINTER),
        ("packed", _POINTER),
    )


class _Output(ctypes.Structure):
    _fields_ = (
        *[(name, ctypes.c_int32) for name in ("steps", "symbols", "columns", "size", "threads")],
        ("team", _POINTER),
        *[(name, _POINTER) for name in ("hidden", "weight", "bias", "targets", "weights", "shift", "sums", "chosen")],
        *[(name, _POINTER) for name in ("logits", "errors", "states", "grad_hidden", "grad_bias", "memory", "packed")],
    )


INTERFACE = 3
"""Of `recurrence.h`."""


def _fits(found: ctypes.CDLL) -> bool:
    """Whether what was compiled is of this version: files of an older one may have been left where they were."""
    found.recurrence_interface.restype = ctypes.c_int64
    sizes = ctypes.sizeof(_Shape) << 32 | ctypes.sizeof(_Layer) << 16 | ctypes.sizeof(_Output)
    return found.recurrence_interface() == INTERFACE << 48 | sizes


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None where they are missing, or this processor lacks the instructions or has better."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_recurrence{suffix}")
        if path.is_file():
            try:
                found = ctypes.CDLL(str(path))
                return found if _fits(found) and found.recurrence_available() else None
            except (OSError, AttributeError):  # of another platform, or something else
                return None
    return None


def wanted() -> bool:
    """Whether there are kernels; never where the environment has `SEQSSVAE_KERNELS=0`."""
    return os.environ.get("SEQSSVAE_KERNELS") != "0" and library() is not None


def read_layers_of(hidden_size: int) -> bool:
    """Whether layers of this size can be read with them."""
    return hidden_size % 8 == 0 and wanted()


def openmp_team() -> int | None:
    """GNU OpenMP's function that starts a team of threads, if the process has loaded it.

    Its threads may be waiting in a loop for more to do, and others would have to share their cores.
    """
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, _POINTER).value
    except (OSError, AttributeError):
        return None


Arrays = Mapping[str, int | Sequence[int | None] | None]
"""Addresses of a layer's arrays by their names in `recurrence.h`; what is left out is NULL."""


def _layer(arrays: Arrays) -> _Layer:
    types: dict[str, Any] = dict(_Layer._fields_)
    return _Layer(**{name: types[name](*of) if isinstance(of, Sequence) else of for name, of in arrays.items()})


def run(
    function: str,
    layers: Sequence[Arrays],
    *,
    cell: str,
    steps: int,
    size: int,
    columns: int,
    rows: int,
    threads: int,
    team: int | None = None,
) -> None:
    """Call `recurrence_forward` or `recurrence_backward`.

    Args:
        function: Which.
        layers: D layers, whose outputs lie as `(T, D, H, N)`.
        cell: `gru` or `lstm`.
        steps: T.
        size: H.
        columns: N = K*B.
        rows: B.
        threads: How many to use.
        team: A function that starts them, as GNU OpenMP's; None: they are made for the call.

    Raises:
        MemoryError: If there is none.
        RuntimeError: Where there are no kernels.
    """
    compiled = _function(function)
    stride = len(layers) * size * columns
    shape = _Shape(cell == "lstm", len(layers), steps, size, columns, rows, stride, threads, team)
    found = (_Layer * len(layers))(*map(_layer, layers))
    if compiled(ctypes.byref(shape), found):
        raise MemoryError(f"{function}: no memory to read {len(layers)} layers of {size} units: their rounded weights.")


def run_output(
    function: str,
    arrays: Mapping[str, int],
    *,
    sizes: tuple[int, ...],
    size: int = 0,
    threads: int,
    team: int | None = None,
) -> None:
    """Call `likelihood_layer`, `likelihood_sums` or `likelihood_errors`.

    Args:
        function: Which.
        arrays: Addresses by their names in `likelihood.h`.
        sizes: S, V and N.
        size: H, of a whole layer.
        threads: How many to use.
        team: As of `run`.

    Raises:
        MemoryError: If there is none.
        RuntimeError: Where there are no kernels.
        ValueError: If H of a whole layer is no multiple of 8.
    """
    compiled, (steps, symbols, columns) = _function(function), sizes
    if size % 8:
        raise ValueError(f"{function}: {size} units, but layers are read 8 units at a time: a multiple of 8 is needed.")
    given = _Output(steps, symbols, columns, size, threads, team, **arrays)
    if compiled(ctypes.byref(given)):
        raise MemoryError(f"{function}: no memory to work in, for {steps * columns} positions of {symbols} symbols.")


def _function(name: str) -> Any:
    compiled = library()
    if compiled is None:
        raise RuntimeError(f"{name}: no kernels for this processor, or they were not compiled: wanted().")
    return getattr(compiled, name)
