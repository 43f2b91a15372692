"""Labels changed, latents between rows, neighbours: what reaches the backend, and mistakes, without a network."""

from types import SimpleNamespace

import numpy as np
import pytest
from toy import NAMES, OTHER_TEXTS, TEXTS, make_estimator, toy_config

from seqssvae.backend import NO_LABEL
from seqssvae.config import DecodingOptions
from seqssvae.data.corpus import Corpus
from seqssvae.data.vocabulary import END, PAD, Vocabulary
from seqssvae.errors import ConfigurationError, DataError, NonFiniteError
from seqssvae.inference.generate import GENERATION_BATCH
from seqssvae.inference.neighbors import nearest
from seqssvae.inference.transfer import interpolate, relabel

VOCABULARY = Vocabulary(tuple("abcd"), "")
BEAM = DecodingOptions(9, "beam", beam_width=3)


class Mirror:
    """z at label y is (1000 y + the row's number as its first two symbols spell it, length); it says y and z back."""

    def __init__(self):
        self.asked = []

    def latents(self, x, source=None):
        numbers = 4 * (x[:, 0] - 4) + (x[:, 1] - 4)
        loc = np.stack([np.stack([1000.0 * y + numbers, (x != PAD).sum(1)], -1) for y in range(3)], 1)
        return SimpleNamespace(loc=loc)

    def classify(self, x, source=None):
        return np.log(np.where(np.arange(3) == (x[:, 0] % 3)[:, None], 0.8, 0.1))

    def generate(self, y, options, seed, **given):
        self.asked.append((y, options, given))
        return np.full((len(y), 1), END), np.asarray(given["z"])[:, 0]


def corpus_of(texts, y):
    return Corpus.from_sequences([VOCABULARY.encode(text) for text in texts], y)


def test_z_is_that_of_each_row_at_its_own_label_in_order():
    texts = ["ab", "dcba", "cca", "ba", "cda"] * 60  # more than are generated at once, in buckets of several lengths
    y = np.arange(300) % 4 - 1
    mirror, own = Mirror(), np.where(y == NO_LABEL, [(4 + "abcd".index(text[0])) % 3 for text in texts], y)
    relabelled = relabel(mirror, VOCABULARY, corpus_of(texts, y), 2, toy_config(), BEAM)
    numbers = [4 * "abcd".index(text[0]) + "abcd".index(text[1]) for text in texts]
    assert [one.log_p for one in relabelled] == (1000 * own + numbers).tolist()
    assert [len(y) for y, *_ in mirror.asked] == [GENERATION_BATCH, GENERATION_BATCH]
    assert {*np.concatenate([y for y, *_ in mirror.asked]).tolist()} == {2}
    assert {options for _, options, _ in mirror.asked} == {BEAM}


def test_the_line_is_straight_and_holds_both_ends():
    mirror = Mirror()
    between = interpolate(mirror, VOCABULARY, corpus_of(["ab", "dcba"], [0, 1]), 2, 5, toy_config(), BEAM)
    assert [one.log_p for one in between] == [2001 + 13 * share for share in (0, 0.25, 0.5, 0.75, 1)]
    ((y, _, given),) = mirror.asked
    assert y.tolist() == [2] * 5
    np.testing.assert_allclose(given["z"][:, 1], [3, 3.5, 4, 4.5, 5])


def test_one_row_is_no_line():
    with pytest.raises(
        ConfigurationError, match="between two rows, both included, must be a whole number of at least 2"
    ):
        interpolate(Mirror(), VOCABULARY, corpus_of(["ab", "dc"], [0, 0]), 2, 1, toy_config(), BEAM)


def test_a_latent_that_is_not_finite_names_its_row():
    mirror = Mirror()
    mirror.latents = lambda x, source: SimpleNamespace(loc=np.where(x[:, :1, None] == 5, np.nan, np.ones((1, 3, 2))))
    with pytest.raises(NonFiniteError, match=r"the mean of q\(z\|x,y\) is not finite in rows memory:1"):
        relabel(mirror, VOCABULARY, corpus_of(["ab", "ba"], [0, 0]), 2, toy_config(), BEAM)


def test_the_nearest_rows_by_hand():
    neighbours = nearest(np.array([[0.0, 0], [3, 4]]), np.array([[3.0, 0], [0, 1], [3, 5], [-6, -8]]), 3)
    assert neighbours.indices.tolist() == [[1, 0, 2], [2, 0, 1]]
    np.testing.assert_allclose(neighbours.distances, [[1, 3, np.sqrt(34)], [1, 4, np.sqrt(18)]])
    for count in (0, 5, True, 1.0):
        with pytest.raises(ConfigurationError, match="the number of neighbours must be a whole number of at least 1"):
            nearest(np.zeros((1, 2)), np.zeros((4, 2)), count)


# The estimator


@pytest.fixture(scope="module")
def model():
    patch = pytest.MonkeyPatch()
    from fake_backend import FakeBackend

    patch.setattr(
        "seqssvae.backend.entry_points", lambda group: [SimpleNamespace(name="fake", load=lambda: FakeBackend)]
    )
    yield make_estimator().fit(TEXTS, [10 if name == "left" else 9 for name in NAMES])
    patch.undo()


def asked_of(model, monkeypatch):
    asked, backend = [], model.fitted_.backend
    original = type(backend).generate

    def generate(*args, **options):
        asked.append((*args[:2], options))
        return original(backend, *args, **options)

    monkeypatch.setattr(backend, "generate", generate)
    return asked


def test_an_estimator_changes_labels(model, monkeypatch):
    asked = asked_of(model, monkeypatch)
    changed = model.relabel(OTHER_TEXTS[:7], 10, y=[9, 10, None, 9, -1, 9, 10], max_length=6)
    assert len(changed) == 7
    assert all(isinstance(text, str) and len(text) <= 6 for text in changed)
    ((y, options, given),) = asked
    assert y.tolist() == [1] * 7  # 10 is the second of the sorted labels
    np.testing.assert_allclose(given["z"], model.transform(OTHER_TEXTS[:7]), rtol=1e-6)  # as of any label, here
    assert options == DecodingOptions(6, "greedy")
    for wrong in (lambda: model.relabel(["ab"], "left"), lambda: model.relabel(["ab"], 9, y=["up"])):
        with pytest.raises(DataError, match=r"There is no label '(left|up)'; known are 9, 10"):
            wrong()


def test_an_estimator_interpolates(model, monkeypatch):
    asked = asked_of(model, monkeypatch)
    assert len(model.interpolate("abab", "cdcd", 9, max_length=5)) == 7
    ((y, _, given),) = asked
    assert y.tolist() == [0] * 7
    a, b = model.transform(["abab", "cdcd"])
    np.testing.assert_allclose(given["z"][[0, 3, 6]], [a, (a + b) / 2, b], rtol=1e-6)
    with pytest.raises(ConfigurationError, match="at least 2"):
        model.interpolate("abab", "cdcd", 9, n=1)
    with pytest.raises(DataError, match="There is no label 8"):
        model.interpolate("abab", "cdcd", 8)


def test_an_estimator_steers_samples(model, monkeypatch):
    asked = asked_of(model, monkeypatch)
    cold = model.sample(9, n=40, temperature=1e-3, max_length=5)
    assert cold == model.sample(9, n=40, method="greedy", max_length=5)
    assert cold == model.sample(9, n=40, top_p=1e-9, max_length=5)
    assert len(set(model.sample(9, n=40, temperature=20, max_length=5))) > 20
    assert [options.temperature for _, options, _ in asked] == [1e-3, 1.0, 1.0, 20.0]
    with pytest.raises(ConfigurationError, match="temperature is for the method sample alone"):
        model.sample(9, method="greedy", temperature=0.5)


def test_an_estimator_finds_neighbours(model):
    neighbours = model.neighbors(["abab", "cdcd"], TEXTS, n=4)
    distances = np.linalg.norm(model.transform(["abab", "cdcd"])[:, None] - model.transform(TEXTS)[None], axis=-1)
    np.testing.assert_allclose(neighbours.distances, np.sort(distances, axis=1)[:, :4], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(distances, neighbours.indices, 1), neighbours.distances, atol=1e-6)
    assert model.neighbors(TEXTS[:3], TEXTS, n=1).distances.max() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ConfigurationError, match="at most 60, not 61"):
        model.neighbors(["abab"], TEXTS, n=61)
