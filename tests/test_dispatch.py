"""The JAX twin's steps: several in one dispatch, what is compiled, and who is told."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from seqssvae.backend import Batch, Dimensions, TrainingStep
from seqssvae.config import Config, DecoderConfig, EncoderConfig, ModelConfig, TrainingConfig
from seqssvae_jax import compilation
from seqssvae_jax.backend import JaxBackend
from seqssvae_jax.dispatch import Entry, of_one_shape, stack

K, V = 3, 8
MODEL = ModelConfig(
    latent_size=2,
    encoder=EncoderConfig(embedding_size=2, hidden_size=3, bidirectional=False),
    decoder=DecoderConfig(embedding_size=2, hidden_size=3),
    dropout=0.2,
)


def batch(length: int, seed: int) -> Batch:
    x = np.random.default_rng(seed).integers(4, V, (4, length)).astype(np.int32)
    x[:, -1] = 3
    return Batch(x, np.full(4, -1, np.int32), np.ones(4, bool), np.arange(4, dtype=np.int32))


def steps(lengths: list[int]) -> list[TrainingStep]:
    return [TrainingStep(None, batch(length, n), 0.5, 0.01 * (n + 1), n) for n, length in enumerate(lengths)]


def backend(steps_per_dispatch: int) -> JaxBackend:
    config = Config(model=MODEL, training=TrainingConfig(steps_per_dispatch=steps_per_dispatch))
    return JaxBackend(config, Dimensions(V, (1 / K,) * K))


def test_steps_are_cut_where_their_shape_changes():
    taken = steps([3, 3, 3, 3, 3, 5, 3])
    groups = list(of_one_shape(taken, 2))
    assert [[step.step for step in group] for group in groups] == [[0, 1], [2, 3], [4], [5], [6]]
    labelled = replace(taken[1], labelled=batch(3, 9))
    assert [len(group) for group in of_one_shape([taken[0], labelled, taken[2]], 8)] == [1, 1, 1]


def test_stacked_inputs_repeat_the_last_one():
    stacked = stack([{"a": np.array([1, 2])}, {"a": np.array([3, 4])}], 3)
    np.testing.assert_array_equal(stacked["a"], [[1, 2], [3, 4], [3, 4]])


def test_an_entry_is_a_number():
    entry = Entry(np.array([1.5, 2.0]), 1)
    assert (float(entry), int(entry), np.asarray(entry).item()) == (2.0, 2, 2.0)


def test_several_steps_in_one_dispatch_are_the_same_steps():
    one, several, heard = backend(1), backend(4), []
    several.announce_to(heard.append)
    taken = steps([3, 3, 3, 3, 3, 3, 5])
    expected, totals = one.train(taken), several.train(taken)
    assert several._train_several._cache_size() == 2  # a program a shape, however many steps there are of it
    assert heard == ["compiling a training step for 4 x 3 symbols", "compiling a training step for 4 x 5 symbols"]
    assert len(totals) == len(expected)
    for theirs, ours in zip(expected, totals, strict=True):
        for a, b in zip(jax.tree.leaves(theirs), jax.tree.leaves(ours), strict=True):
            np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=2e-6, atol=1e-6)
    for name, weight in one.get_weights().items():
        np.testing.assert_allclose(several.get_weights()[name], weight, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("told", [{}, {"JAX_COMPILATION_CACHE_DIR": "elsewhere"}, {"SEQSSVAE_CACHE": ""}])
def test_compiled_programs_are_kept_unless_the_user_said_where(told, monkeypatch, tmp_path):
    changed = {}
    values = {"jax_compilation_cache_dir": None}
    config = SimpleNamespace(values=values, update=lambda name, value: changed.update({name: value}))
    monkeypatch.setattr(compilation, "jax", SimpleNamespace(config=config))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    compilation.use_cache()
    directory = None if told else str(tmp_path / "seqssvae" / "jax")
    assert changed.get("jax_compilation_cache_dir") == directory
