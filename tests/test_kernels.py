"""The kernels written in C, by way of both twins: against PyTorch's derivative of steps that nobody sped up.

Operands of products are rounded there as well, and gradients pass through the rounding.
"""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import seqssvae_jax.recurrence as of_jax
import seqssvae_torch.recurrence as of_torch
from seqssvae import kernels
from seqssvae_torch import fused

GATES, STATES = {"gru": 3, "lstm": 4}, {"gru": 1, "lstm": 2}
VALUES, GRADIENTS = 2e-4, 6e-3
"""Greatest relative error of outputs, which float32 may push over a rounding, and of gradients: some of bfloat16's."""
Arrays = dict[str, Tensor]
needs_kernels = pytest.mark.skipif(
    kernels.library() is None, reason="no C compiler at installation, or no bfloat16 instructions here"
)


def arrays(cell: str, sizes: tuple[int, int, int, int, int], constant: bool, state: bool, seed: int = 0) -> Arrays:
    """Of D layers, T steps, K labels, B rows and H units."""
    layers, steps, labels, rows, size = sizes
    torch.manual_seed(seed)
    gates, columns = GATES[cell] * size, labels * rows
    found = {"row_gates": torch.randn(layers, gates, steps, rows)}
    if constant:
        found["constant"] = torch.randn(layers, gates, columns)
    if state:
        found |= {f"state{place}": torch.randn(layers, size, columns) for place in range(STATES[cell])}
    found["weight_hh"] = torch.randn(layers, gates, size) / size**0.5
    if cell == "gru":
        found["bias_n"] = torch.randn(layers, size)
    return found


def weighting(given: Arrays) -> Tensor:
    """The gradient that outputs are given, in one piece."""
    layers, _, steps, rows = given["row_gates"].shape
    columns = given["state0"].shape[2] if "state0" in given else rows
    return torch.randn(steps, layers, given["weight_hh"].shape[2], columns, generator=torch.Generator().manual_seed(1))


def differentiated(function: Callable[[Arrays], Tensor], given: Arrays) -> Arrays:
    """Outputs, and gradients of all that is given."""
    leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
    outputs = function(leaves)
    outputs.backward(weighting(given).to(outputs.dtype))
    return {"outputs": outputs.detach()} | {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def rounded(values: Tensor) -> Tensor:
    """To bfloat16; its gradient is that of no rounding."""
    return values + (values.bfloat16().to(values.dtype) - values).detach()


def steps_of(given: Arrays) -> Tensor:
    """Step after step."""
    row_gates, weight = given["row_gates"], given["weight_hh"]
    layers, _, steps, rows = row_gates.shape
    first = given.get("state0", row_gates.new_zeros(layers, weight.shape[2], rows))
    hidden, cell, outputs = first, given.get("state1", torch.zeros_like(first)), []
    for step in range(steps):
        gates = row_gates[:, :, step].repeat(1, 1, first.shape[2] // rows) + given.get("constant", 0.0)
        product = rounded(weight) @ rounded(hidden)
        if "bias_n" in given:
            (reset, update, candidate), (of_reset, of_update, of_candidate) = gates.chunk(3, 1), product.chunk(3, 1)
            reset, update = torch.sigmoid(reset + of_reset), torch.sigmoid(update + of_update)
            candidate = torch.tanh(candidate + reset * (of_candidate + given["bias_n"][:, :, None]))
            hidden = (1 - update) * candidate + update * hidden
        else:
            enter, forget, value, leave = (gates + product).chunk(4, 1)
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(value)
            hidden = torch.sigmoid(leave) * torch.tanh(cell)
        outputs.append(hidden)
    return torch.stack(outputs)


def expected(given: Arrays) -> Arrays:
    """In float64."""
    return differentiated(steps_of, {name: value.double() for name, value in given.items()})


def read_by_torch(given: Arrays) -> Tensor:
    """By the kernels."""
    states = tuple(given.get(f"state{place}") for place in range(1 if "bias_n" in given else 2))
    return fused.read(given["row_gates"], given.get("constant"), states, given["weight_hh"], given.get("bias_n"))


def layers_of(given: dict[str, jax.Array], rows: int) -> tuple[of_jax.Layer, ...]:
    """As the JAX twin has them: labels and rows are two dimensions."""

    def of_layer(place: int) -> of_jax.Layer:
        parts = {name: value[place] for name, value in given.items()}
        unfolded = {
            name: value.reshape(len(value), -1, rows)
            for name, value in parts.items()
            if name.startswith(("state", "constant"))
        }
        states = tuple(unfolded[name] for name in sorted(unfolded) if name != "constant")
        row_gates, weight, bias = parts["row_gates"], parts["weight_hh"], parts.get("bias_n")
        return of_jax.Layer(row_gates, unfolded.get("constant"), states, weight, bias)

    return tuple(of_layer(place) for place in range(len(given["row_gates"])))


def solved_by_jax(given: Arrays) -> Arrays:
    """Outputs and gradients."""
    rows, cell = given["row_gates"].shape[3], "gru" if "bias_n" in given else "lstm"

    def read(arrays: dict[str, jax.Array]) -> jax.Array:
        layers = layers_of(arrays, rows)
        assert of_jax.fused.serves(layers, jnp.bfloat16)
        found = of_jax._read(layers, of_jax._Setting(cell, jnp.bfloat16, True))
        return jnp.stack([of_layer.reshape(*of_layer.shape[:2], -1) for of_layer in found], 1)

    @jax.jit
    def solve(arrays: dict[str, jax.Array], weighting: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        outputs, backward = jax.vjp(read, arrays)
        return outputs, backward(weighting)[0]

    plain = {name: jnp.asarray(value.numpy()) for name, value in given.items()}
    outputs, gradients = solve(plain, jnp.asarray(weighting(given).numpy()))
    return {name: torch.tensor(np.asarray(value)) for name, value in ({"outputs": outputs} | gradients).items()}


def errors(found: Arrays, reference: Arrays) -> dict[str, float]:
    """Relative, by norm."""
    assert found.keys() == reference.keys()
    return {
        name: float((found[name].double() - of).norm() / of.norm().clamp(min=1e-30)) for name, of in reference.items()
    }


def assert_close(found: Arrays, reference: Arrays) -> None:
    for name, error in errors(found, reference).items():
        assert error < (VALUES if name == "outputs" else GRADIENTS), f"{name}: {error}"


@needs_kernels
@given(
    cell=st.sampled_from(["gru", "lstm"]),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 40), st.integers(1, 5)),
    constant=st.booleans(),
    state=st.booleans(),
)
def test_values_and_gradients(cell: str, sizes: tuple[int, int, int, int, int], constant: bool, state: bool) -> None:
    layers, steps, labels, rows, eights = sizes
    labels = labels if state else 1  # a state of zeros is one label's
    given = arrays(cell, (layers, steps, labels, rows, 8 * eights), constant, state)
    assert_close(differentiated(read_by_torch, given), expected(given))


@needs_kernels
@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize(("sizes", "constant"), [((1, 4, 3, 21, 16), True), ((2, 3, 1, 40, 8), False)])
def test_values_and_gradients_by_xla(cell: str, sizes: tuple[int, int, int, int, int], constant: bool) -> None:
    given = arrays(cell, sizes, constant, True)
    assert_close(solved_by_jax(given), expected(given))


@needs_kernels
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_twins_call_the_same_kernels(cell: str) -> None:
    given = arrays(cell, (1, 4, 3, 21, 16), True, True)
    by_torch, by_jax = differentiated(read_by_torch, given), solved_by_jax(given)
    for name in by_torch:
        if name != "weight_hh":  # a product of their own
            assert torch.equal(by_torch[name], by_jax[name]), name


@needs_kernels
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_threads_and_who_starts_them_change_no_bit(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, run, found = arrays(cell, (2, 3, 3, 50, 16), True, True), kernels.run, []

    def run_with(threads: int, team: int | None) -> Callable[..., None]:
        return lambda *parts, **shape: run(*parts, **shape | {"threads": threads, "team": team})

    for threads, team in ((1, None), (2, None), (3, kernels.openmp_team()), (64, None)):
        monkeypatch.setattr(kernels, "run", run_with(threads, team))
        found.append(differentiated(read_by_torch, given))
    for other in found[1:]:
        assert all(torch.equal(other[name], found[0][name]) for name in other)


def off_by_a_row(given: Arrays, layers: Any, shape: dict[str, Any]) -> None:
    """Gates of rows that are the next row's."""
    given["moved"] = given["row_gates"].roll(1, 3)
    for layer in layers:
        if layer.get("row_gates"):
            layer["row_gates"] = given["moved"].data_ptr()


def folded_otherwise(given: Arrays, layers: Any, shape: dict[str, Any]) -> None:
    """A constant that is read row by row and not label by label."""
    given["moved"] = given["constant"].unflatten(2, (3, 21)).transpose(2, 3).contiguous()
    for layer in layers:
        if layer.get("constant"):
            layer["constant"] = given["moved"].data_ptr()


def other_weights(given: Arrays, layers: Any, shape: dict[str, Any]) -> None:
    """Weights of the way back that are not those of the way forward."""
    given["moved"] = given["weight_hh"].roll(1, 1)
    for layer in layers:
        if layer.get("grad_rows"):
            layer["weight"] = given["moved"].data_ptr()


def swapped(given: Arrays, layers: Any, shape: dict[str, Any]) -> None:
    """Two of the numbers that are kept."""
    for layer in layers:
        if layer.get("grad_rows"):
            layer["kept"][1], layer["kept"][2] = layer["kept"][2], layer["kept"][1]


@needs_kernels
@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("defect", [off_by_a_row, folded_otherwise, other_weights, swapped])
def test_what_is_broken_is_caught(cell: str, defect: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    given, run, moved = arrays(cell, (1, 4, 3, 21, 16), True, True), kernels.run, {}

    def broken(function: str, layers: Any, **shape: Any) -> None:
        moved.update(given)
        defect(moved, layers, shape)
        run(function, layers, **shape)

    monkeypatch.setattr(kernels, "run", broken)
    with pytest.raises(AssertionError):
        assert_close(differentiated(read_by_torch, given), expected(given))


@needs_kernels
def test_unrounded_products_would_be_seen() -> None:
    given = arrays("gru", (1, 4, 3, 21, 16), True, True)
    exact = differentiated(
        lambda leaves: of_torch._GRU.apply(
            *(leaves[name] for name in ("row_gates", "constant", "state0", "weight_hh", "bias_n")), None, True
        ),
        given,
    )
    assert errors(exact, expected(given))["outputs"] > 2 * VALUES


@needs_kernels
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_extremes_saturate_and_what_is_no_number_stays_none(cell: str) -> None:
    given = arrays(cell, (1, 2, 1, 40, 8), True, True)
    given["row_gates"] *= 1e4
    found = differentiated(read_by_torch, given)
    assert all(torch.isfinite(value).all() for value in found.values())
    assert found["outputs"].abs().max() <= given["state0"].abs().max().clamp(min=1)
    given["row_gates"][0, 0, 0, 5] = torch.nan
    outputs = read_by_torch(given)
    assert outputs[1, 0, :, 5].isnan().all()
    assert outputs.isnan().any(2).sum() == 2


@needs_kernels
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_gates_that_are_nearly_open_keep_their_slope(cell: str) -> None:
    """It is what is left to 1 of a number that is kept in 16 bits."""
    given = arrays(cell, (1, 2, 2, 40, 16), False, True)
    gates = given["row_gates"].unflatten(1, (GATES[cell], 16)).mul_(0.1).add_(7.0)
    gates[:, 2] -= 4.5  # the candidate, whose slope falls twice as fast
    for name, error in errors(differentiated(read_by_torch, given), expected(given)).items():
        assert error < 2 * GRADIENTS, name


@needs_kernels
def test_without_a_gradient_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    given, kept, run = arrays("lstm", (1, 3, 2, 5, 8), True, True), [], kernels.run

    def watched(function: str, layers: Any, **shape: Any) -> None:
        kept.extend(len(layer["kept"]) for layer in layers)
        run(function, layers, **shape)

    monkeypatch.setattr(kernels, "run", watched)
    with torch.no_grad():
        alone = read_by_torch(given)
    assert torch.equal(alone, differentiated(read_by_torch, given)["outputs"])
    assert kept == [0, 5, 5]


@needs_kernels
def test_layers_use_them_for_bfloat16_and_sizes_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def served(hidden: int, rounding: torch.dtype | None, dtype: torch.dtype = torch.float32) -> bool:
        return fused.serves(torch.zeros(1, dtype=dtype), hidden, rounding)

    assert served(16, torch.bfloat16)
    assert not served(20, torch.bfloat16)
    assert not served(16, None)
    assert not served(16, torch.bfloat16, torch.float64)
    monkeypatch.setenv("SEQSSVAE_KERNELS", "0")
    assert not served(16, torch.bfloat16)


@pytest.fixture
def forgotten() -> Any:
    """What has been loaded is looked for again, before and after."""
    kernels.library.cache_clear()
    yield
    kernels.library.cache_clear()


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("content", [None, b"not a library"])
def test_where_they_are_missing_or_broken_there_are_none(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "__init__.py"))
    if content is not None:
        (tmp_path / f"_recurrence{kernels.EXTENSION_SUFFIXES[0]}").write_bytes(content)
    assert kernels.library() is None
    assert not kernels.read_layers_of(16)
    with pytest.raises(RuntimeError, match="recurrence_forward: no kernels for this processor"):
        kernels.run("recurrence_forward", [{}], cell="gru", steps=1, size=16, columns=1, rows=1, threads=1)


@needs_kernels
@pytest.mark.usefixtures("forgotten")
def test_what_was_compiled_from_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(kernels, "INTERFACE", kernels.INTERFACE + 1)
        assert kernels.library() is None
    kernels.library.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(kernels, "_Layer", kernels._Shape)
        assert kernels.library() is None
    kernels.library.cache_clear()
    assert kernels.library() is not None


def test_no_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        @staticmethod
        def recurrence_forward(*_: Any) -> int:
            return -1

    monkeypatch.setattr(kernels, "library", lambda: Library)
    with pytest.raises(MemoryError, match="recurrence_forward: no memory to read 2 layers of 16 units"):
        kernels.run("recurrence_forward", [{}, {}], cell="gru", steps=1, size=16, columns=1, rows=1, threads=1)


@needs_kernels
def test_programs_for_other_platforms_do_without() -> None:
    given = {name: jnp.asarray(value.numpy()) for name, value in arrays("gru", (1, 2, 2, 3, 8), True, True).items()}

    def loss(arrays: dict[str, jax.Array]) -> jax.Array:
        return of_jax._read(layers_of(arrays, 3), of_jax._Setting("gru", jnp.bfloat16, True))[0].sum()

    assert of_jax.fused.serves(layers_of(given, 3), jnp.bfloat16)
    traced = jax.jit(jax.grad(loss)).trace(given)
    texts = {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "cuda", "tpu")}
    assert {platform: "seqssvae_xla" in text for platform, text in texts.items()} == dict(
        cpu=True, cuda=False, tpu=False
    )
    assert "stablehlo.while" not in texts["cpu"]


@needs_kernels
def test_xla_is_told_what_is_wrong_with_a_call() -> None:
    assert of_jax.fused._registered()
    call = jax.ffi.ffi_call("seqssvae_xla_forward", jax.ShapeDtypeStruct((2,), jnp.float32))
    with pytest.raises(jax.errors.JaxRuntimeError, match="described by 8 int32 numbers"):
        call(jnp.zeros(2), numbers=np.zeros(3, np.int32))
    with pytest.raises(jax.errors.JaxRuntimeError, match="1 to 8 layers, and a multiple of 8 units"):
        call(jnp.zeros(2), numbers=np.array([0, 9, 1, 8, 1, 1, 0, 0], np.int32))
    numbers = np.array([0, 1, 1, 8, 1, 1, 0, 0], np.int32)
    arrays = [jnp.zeros(shape) for shape in ((24, 1, 1), (8, 1, 1), (24, 8), (8,))]
    call = jax.ffi.ffi_call("seqssvae_xla_forward", [jax.ShapeDtypeStruct((1, 8, 1, 1), jnp.float32)])
    assert not call(*arrays, numbers=numbers)[0].any()
    for wrong in (arrays[:3], [*arrays, arrays[0]], [*arrays[:3], jnp.zeros(9)], [*arrays[:3], jnp.zeros(8, int)]):
        with pytest.raises(jax.errors.JaxRuntimeError, match="arrays are not those that its 8 numbers describe"):
            call(*wrong, numbers=numbers)


FIELDS = {
    "XLA_FFI_CallFrame": ("frame", {"extension_start": "extension", "api": "interface", "args": "arguments"}
        | {"rets": "results", "attrs": "attributes"}),
    "XLA_FFI_Args": ("buffers", {"size": "size", "types": "types", "args": "buffers"}),
    "XLA_FFI_Rets": ("buffers", {"size": "size", "types": "types", "rets": "buffers"}),
    "XLA_FFI_Attrs": ("attributes", {"size": "size", "types": "types", "names": "names", "attrs": "values"}),
    "XLA_FFI_Buffer": ("buffer", {"dtype": "type", "data": "data", "rank": "rank", "dims": "sizes"}),
    "XLA_FFI_Array": ("array", {"dtype": "type", "size": "size", "data": "data"}),
    "XLA_FFI_Api": ("interface", {"api_version": "version", "XLA_FFI_Error_Create": "create_error"}),
    "XLA_FFI_Error_Create_Args": ("error", {"message": "message", "errc": "code"}),
    "XLA_FFI_Metadata": ("metadata", {"api_version": "version", "traits": "traits"}),
    "XLA_FFI_Metadata_Extension": ("metadata_extension", {"metadata": "metadata"}),
    "XLA_FFI_Api_Version": ("version", {"major_version": "major", "minor_version": "minor"}),
    "XLA_FFI_Extension_Base": ("extension", {"type": "type"}),
}  # fmt: skip
NUMBERS = {"XLA_FFI_Extension_Metadata": "METADATA", "XLA_FFI_AttrType_ARRAY": "ARRAY", "XLA_FFI_DataType_S32": "INT32"}
NUMBERS |= {"XLA_FFI_DataType_F32": "FLOAT32", "XLA_FFI_DataType_BF16": "BFLOAT16"}
NUMBERS |= {"XLA_FFI_Error_Code_RESOURCE_EXHAUSTED": "EXHAUSTED", "XLA_FFI_Error_Code_INVALID_ARGUMENT": "INVALID"}


needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@needs_compiler
def test_the_sources_compile_without_a_warning_and_were_compiled() -> None:
    sources = sorted(map(str, Path(kernels.__file__).parent.glob("*.c")))
    command = ["cc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    for others in ([], ["-DWITHOUT_KERNELS"]):
        done = subprocess.run([*command, *others, *sources], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert list(Path(kernels.__file__).parent.glob("_recurrence*"))


@needs_compiler
@pytest.mark.parametrize("moved", [False, True])
def test_xlas_structures_lie_as_xla_says(moved: bool, tmp_path: Path) -> None:
    own = Path(kernels.__file__).with_name("xla.h").read_text()
    if moved:
        own = own.replace("int type;\n    void *data;", "void *data;\n    int type;")
    (tmp_path / "xla.h").write_text(own)
    lines = ['#include "xla.h"', '#include "xla/ffi/api/c_api.h"']
    for theirs, (name, fields) in FIELDS.items():
        pairs = [f"offsetof({theirs}, {field}) == offsetof({name}, {own})" for field, own in fields.items()]
        lines += [f'_Static_assert({pair}, "");' for pair in pairs]
    lines += [f'_Static_assert((int){theirs} == (int){name}, "");' for theirs, name in NUMBERS.items()]
    source = tmp_path / "same.c"
    source.write_text("\n".join(lines))
    command = ["cc", "-std=c11", "-fsyntax-only", f"-I{jax.ffi.include_dir()}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode != 0) == moved, done.stderr


def test_where_openmp_is_not_loaded_threads_are_the_c_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert kernels.openmp_team() is None


@needs_kernels
@pytest.mark.parametrize("layout", ["expanded", "rows first"])
def test_gradients_come_in_any_layout(layout: str) -> None:
    """What PyTorch hands back is often no array in one piece; a copy has to live until it was read."""
    given = arrays("gru", (1, 6, 4, 100, 64), True, True)
    leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
    outputs = read_by_torch(leaves)
    gradient = torch.randn(6, 1, 1, 1).expand_as(outputs)
    if layout == "rows first":
        gradient = torch.randn(6, 400, 64, 1).permute(0, 3, 2, 1)
    found = torch.autograd.grad(outputs, list(leaves.values()), gradient, retain_graph=True)
    in_one_piece = torch.autograd.grad(outputs, list(leaves.values()), gradient.contiguous())
    assert all(torch.equal(one, other) for one, other in zip(found, in_one_piece, strict=True))


@needs_kernels
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_layers_of_pytorch_are_read_by_them(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layers = [of_torch.RecurrentLayer(cell, 3, 16) for _ in range(2)]
    for weight in (weight for layer in layers for weight in layer.parameters()):
        torch.nn.init.normal_(weight, std=0.3)
    for layer in layers:
        layer.rounding = torch.bfloat16
    inputs, found = torch.randn(2, 5, 4, 3), []
    states = tuple(torch.randn(2, 15, 16) for _ in range(STATES[cell]))
    constant, calls, run = torch.randn(2, 15, layers[0].bias.numel()), [], kernels.run
    monkeypatch.setattr(kernels, "run", lambda *a, **k: (calls.append(a[0]), run(*a, **k)))
    for setting in ("1", "0"):
        monkeypatch.setenv("SEQSSVAE_KERNELS", setting)
        outputs = of_torch.read_together(layers, of_torch.project_together(layers, inputs), constant, states)
        weights = [weight for layer in layers for weight in layer.parameters()]
        found.append([outputs, *torch.autograd.grad(outputs.square().sum(), weights)])
    assert calls == ["recurrence_forward", "recurrence_backward"]
    for one, other in zip(*found, strict=True):
        assert 0 < (one - other).norm() < 0.01 * other.norm()


@needs_kernels
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_layers_of_jax_are_read_by_them(cell: str) -> None:
    given = arrays(cell, (1, 3, 2, 5, 16), True, True)
    layers = layers_of({name: jnp.asarray(value.numpy()) for name, value in given.items()}, 5)
    serves, bfloat16 = of_jax.fused.serves, jnp.bfloat16
    assert serves(layers, bfloat16)
    assert not serves(layers, None)
    assert serves(layers * 8, bfloat16)
    assert not serves(layers * 9, bfloat16)
    assert not serves((*layers, layers[0]._replace(constant=None)), bfloat16)
    assert not serves((*layers, layers[0]._replace(row_gates=layers[0].row_gates[:, 1:])), bfloat16)
    assert not serves((layers[0]._replace(weight_hh=layers[0].weight_hh.astype(bfloat16)),), bfloat16)
    # without a gradient, and under vmap
    plain, kept = (of_jax._Setting(cell, bfloat16, of_kernels) for of_kernels in (False, True))
    (expected,), (outputs,) = (jax.jit(of_jax._read, static_argnums=1)(layers, setting) for setting in (plain, kept))
    np.testing.assert_allclose(outputs, expected, atol=1e-3)
    twice = jax.tree.map(lambda part: jnp.stack([part, -part]), layers)
    (of_both,) = jax.vmap(lambda layers: of_jax._read(layers, kept))(twice)
    assert (of_both[0] == outputs).all()
    assert (of_both[1] != outputs).any()


@needs_kernels
def test_jax_asks_the_environment_when_layers_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, read = [], of_jax._read
    monkeypatch.setattr(of_jax, "_read", lambda layers, setting: (settings.append(setting), read(layers, setting))[1])
    for value in ("1", "0"):
        monkeypatch.setenv("SEQSSVAE_KERNELS", value)
        layer = of_jax.RecurrentLayer("gru", 3, 8)
        layer.rounding = jnp.bfloat16
        layer(jnp.zeros((2, 3, 24)), None, layer.zero_state(1, 2))
    assert [setting.fused for setting in settings] == [True, False]
