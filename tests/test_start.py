"""Where the recipe `auto` starts its network: a decoder that is a model of bigrams before its first step."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqssvae.backend import Dimensions, get_backend
from seqssvae.config.settings import from_dict
from seqssvae.data.ragged import RaggedArray
from seqssvae.data.vocabulary import END, START
from seqssvae.recipes import start
from seqssvae.recipes.named import with_recipe
from seqssvae.recipes.start import start_weights, symbol_bias

SIZE, LABELS = 9, (0.5, 0.5)
CONFIG = from_dict(with_recipe("auto", {"model": {"latent_size": 3}}))
ROWS = [[4, 5, 6, 7] * 3, [5, 6, 7, 8, 4], [4, 4, 5, 6], [8, 8, 7]] * 5


def ragged(rows: list[list[int]]) -> RaggedArray:
    return RaggedArray.from_rows([[*row, END] for row in rows])


def started(config, rows, size=SIZE):
    twin = get_backend("torch")(config, Dimensions(size, LABELS))
    twin.set_weights(start_weights(twin.get_weights(), config.model, rows.counts(size), rows))
    return twin


def log_likelihood(twin, row, seed=0):
    """log p(x|y,z) of a row by label, for some z."""
    z = np.random.default_rng(seed).normal(size=(1, 2, 3))
    return np.asarray(twin.log_likelihood(np.array([[*row, END]], np.int32), z))[0]


def witten_bell(rows: RaggedArray, row: list[int]) -> float:
    """log p(x) by `(c(u, v) + k(u) p(v)) / (c(u) + k(u))`."""
    p = np.exp(symbol_bias(rows.counts(SIZE)))
    p /= p.sum()
    pairs = [(u, v) for known in rows for u, v in zip([START, *known.tolist()], known.tolist(), strict=False)]
    total = 0.0
    for u, v in zip([START, *row], [*row, END], strict=True):
        after = [second for first, second in pairs if first == u]
        kinds = len(set(after))
        total += np.log((after.count(v) + kinds * p[v]) / (len(after) + kinds))
    return total


@pytest.mark.parametrize("row", [[4, 5, 6, 7], [8, 4, 4], [7, 7, 7], []])
def test_the_decoder_starts_as_bigrams_whatever_label_and_z_are(row):
    rows = ragged(ROWS)
    log_p = log_likelihood(started(CONFIG, rows), row)
    assert log_p[0] == log_p[1] == log_likelihood(started(CONFIG, rows), row, seed=1)[0]
    # two tanh of what is at most .3, and a gate that is nearly shut
    assert log_p[0] / (len(row) + 1) == pytest.approx(witten_bell(rows, row) / (len(row) + 1), abs=0.2)


def test_more_symbols_than_an_embedding_has_entries_are_as_near_as_it_allows(monkeypatch):
    generator = np.random.default_rng(0)
    texts = [(4 + np.cumsum(generator.integers(0, 3, 12)) % 60).tolist() for _ in range(300)]
    rows, probe, values = ragged(texts[:250]), texts[250:], {}
    for name, most in (("dense", 400), ("sparse", 0)):
        monkeypatch.setattr(start, "DENSE", most)
        twin = started(CONFIG, rows, 64)
        values[name] = np.mean([log_likelihood(twin, row)[0] / (len(row) + 1) for row in probe])
    monkeypatch.setattr(start, "_bigram_decoder", lambda *_: {})
    symbols = np.mean([log_likelihood(started(CONFIG, rows, 64), row)[0] / (len(row) + 1) for row in probe])
    assert values["dense"] == pytest.approx(values["sparse"], abs=1e-4)
    assert values["dense"] > symbols + 0.5


@pytest.mark.parametrize(
    "changes",
    [{"cell": "lstm"}, {"decoder": {"context": 1}}, {"decoder": {"layers": 2}}, {"decoder": {"conditioning": "init"}}],
)
def test_other_decoders_start_at_the_frequencies_of_symbols(changes):
    config = from_dict(with_recipe("auto", {"model": changes}))
    twin = get_backend("torch")(config, Dimensions(SIZE, LABELS))
    before, rows = twin.get_weights(), ragged(ROWS)
    after = start_weights(before, config.model, rows.counts(SIZE), rows)
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {"decoder.output.bias"}
    p = np.exp(after["decoder.output.bias"])
    assert (p / p.sum())[4] == pytest.approx((rows.counts(SIZE)[4] + 0.5) / (len(rows.values) + 0.5 * SIZE), rel=1e-5)


@settings(max_examples=20)
@given(st.lists(st.lists(st.integers(1, 8), max_size=4), min_size=1, max_size=3), st.integers(1, 40))
def test_any_rows_and_sizes_give_finite_weights(rows, size):
    decoder = replace(CONFIG.model.decoder, embedding_size=size, hidden_size=12)
    config = replace(CONFIG, model=replace(CONFIG.model, decoder=decoder))
    twin = started(config, ragged(rows))
    assert all(np.isfinite(value).all() for value in twin.get_weights().values())
    assert np.isfinite(log_likelihood(twin, [4, 5])).all()
