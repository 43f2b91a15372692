"""Weights of a trained model in one with further symbols and other labels."""

import numpy as np
import pytest
from toy import SETTINGS

from seqssvae.config.settings import from_dict, merge
from seqssvae.data.carried import carry_weights
from seqssvae.data.schema import Schema
from seqssvae.data.vocabulary import Labels, Vocabulary
from seqssvae.parameters import parameter_shapes


def schema(symbols: str, labels: tuple[str, ...], sources: str = "") -> Schema:
    source = Vocabulary(tuple(sources), "") if sources else None
    return Schema(Vocabulary(tuple(symbols), ""), Labels(labels), (1 / len(labels),) * len(labels), source)


@pytest.mark.parametrize("sources", [("", ""), ("pq", "prq")])
@pytest.mark.parametrize("conditioning", ["init", "every_step", "output"])
def test_what_belongs_to_known_symbols_and_labels_is_carried_and_nothing_else(conditioning, sources):
    model = from_dict(merge(SETTINGS, {"model": {"decoder": {"conditioning": conditioning}}})).model
    known, new = schema("abc", ("n", "m"), sources[0]), schema("cbxa", ("k", "m", "l", "n"), sources[1])

    def weights(one: Schema, seed: int) -> dict[str, np.ndarray]:
        vocabulary, prior, count = one.dimensions
        generator = np.random.default_rng(seed)
        shapes = parameter_shapes(model, vocabulary, len(prior), count)
        return {name: generator.normal(size=shape) for name, shape in shapes.items()}

    old, first = weights(known, 1), weights(new, 2)
    carried = carry_weights(old, known, new, model, first)
    assert carried["classifier.weight"][3].tolist() == old["classifier.weight"][0].tolist()  # n
    assert carried["classifier.bias"][1] == old["classifier.bias"][1]  # m
    assert carried["classifier.weight"][0].tolist() == first["classifier.weight"][0].tolist()  # k
    embedding = carried["encoder.towers.0.embedding"]
    for symbol, there in {7: 4, 5: 5, 4: 6, 0: 0, 1: 1, 2: 2, 3: 3}.items():  # a, b, c and the special ones
        np.testing.assert_array_equal(embedding[symbol], old["encoder.towers.0.embedding"][there])
    np.testing.assert_array_equal(embedding[6], first["encoder.towers.0.embedding"][6])  # x
    hidden = carried["latent_encoder.hidden.label_weight"]
    np.testing.assert_array_equal(hidden[:, [3, 1]], old["latent_encoder.hidden.label_weight"])
    np.testing.assert_array_equal(hidden[:, [0, 2]], first["latent_encoder.hidden.label_weight"][:, [0, 2]])
    for name in ("latent_encoder.loc.weight", "encoder.towers.0.layers.0.left_to_right.weight_hh"):
        np.testing.assert_array_equal(carried[name], old[name])
    if conditioning == "output":
        bias, before = carried["decoder.label_bias"], old["decoder.label_bias"]
        np.testing.assert_array_equal(bias[np.ix_([7, 5, 4], [3, 1])], before[np.ix_([4, 5, 6], [0, 1])])
        assert bias[6, 3] == first["decoder.label_bias"][6, 3]
    if sources[0]:
        name = "source_encoder.tower.embedding"
        np.testing.assert_array_equal(carried[name][6], old[name][5])
    np.testing.assert_equal(carry_weights(old, known, known, model, first=weights(known, 3)), old)
