import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssvae.data.table import SymbolColumn, split_symbols
from seqssvae.data.vocabulary import END, NEVER_GENERATED, PAD, SPECIALS, START, UNK, Labels, Vocabulary
from seqssvae.errors import DataError

TEXTS = st.text(alphabet="abcdeé語 \u2028", max_size=12)


def test_special_ids_are_those_of_yoyodyne():
    assert (PAD, UNK, START, END) == (0, 1, 2, 3)
    assert SPECIALS == ("<P>", "<UNK>", "<S>", "<E>")
    assert NEVER_GENERATED == (0, 2)


def learned(sequences, separator, minimum_count=1):
    return Vocabulary.from_counts(SymbolColumn.from_symbols(sequences).counts(), separator, minimum_count)


def test_symbols_are_sorted_and_counted_over_all_sequences():
    sequences = ["banana", "cab", "a"]  # a: 5, b: 2, n: 2, c: 1
    assert learned(sequences, "").symbols == ("a", "b", "c", "n")
    assert learned(sequences, "", 2).symbols == ("a", "b", "n")
    assert len(learned(sequences, "", 3)) == 4 + 1


def test_encode_appends_end_and_knows_unknown_symbols():
    vocabulary = Vocabulary(("a", "b"), "")
    ids = vocabulary.encode("abx")
    assert ids.tolist() == [4, 5, 1, 3]
    assert ids.dtype == np.int32
    assert vocabulary.encode("").tolist() == [3]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([4, 5, 3, 4], ["a", "b"]),
        ([4, 0, 5], ["a"]),
        ([2, 5, 1], ["b", "<UNK>"]),
        ([], []),
    ],
)
def test_decode_stops_at_end_or_pad_and_drops_start(ids, expected):
    assert Vocabulary(("a", "b"), "").decode(np.array(ids, dtype=np.int64)) == expected


@given(st.lists(TEXTS.filter(bool), min_size=1))
def test_known_text_survives_encoding_and_decoding(texts):
    vocabulary = learned(texts, "")
    for text in texts:
        ids = vocabulary.encode(vocabulary.split(text))
        assert len(ids) == len(text) + 1
        assert vocabulary.join(vocabulary.decode(ids)) == text


@given(st.lists(st.text(alphabet="abc-", min_size=1, max_size=4), min_size=1, max_size=6))
def test_separated_symbols_survive_encoding_and_decoding(symbols):
    vocabulary = learned([symbols], "+ ")
    text = vocabulary.join(symbols)
    assert vocabulary.split(text) == symbols
    assert vocabulary.decode(vocabulary.encode(symbols)) == symbols


def test_split_symbols_takes_nothing_between_separators_as_no_symbol():
    assert split_symbols(" a  bc ", " ") == ["a", "bc"]
    assert split_symbols("a b", "") == ["a", " ", "b"]
    assert split_symbols("", " ") == split_symbols("", "") == []


def test_what_is_written_like_a_special_symbol_is_unknown():
    vocabulary = learned([["<E>", "a", "<UNK>"]], " ")
    assert vocabulary.symbols == ("a",)
    assert vocabulary.encode(["<E>", "a", "<UNK>"]).tolist() == [UNK, 4, UNK, END]


@pytest.mark.parametrize(
    ("symbols", "message"),
    [(("a", "a"), "'a' is repeated"), (("",), "not empty"), (("<P>",), "not reserved, not '<P>'")],
)
def test_symbols_are_checked(symbols, message):
    with pytest.raises(DataError, match=message):
        Vocabulary(symbols, "")


@given(st.sets(TEXTS.filter(bool)), st.sampled_from(["", " ", "--"]))
def test_vocabulary_survives_json(symbols, separator):
    vocabulary = Vocabulary(tuple(sorted(symbols)), separator)
    assert Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary


@pytest.mark.parametrize(
    "stored",
    [{}, {"symbols": ["a"]}, {"separator": "", "symbols": "ab"}, {"separator": 1, "symbols": ["a"]}, []],
)
def test_stored_vocabulary_of_another_form_is_refused(stored):
    with pytest.raises(DataError, match=r"stored vocabulary must have a (text|list of texts) named"):
        Vocabulary.from_dict(stored)


@pytest.mark.parametrize("symbols", [["a", "a"], [1], [None], ["<S>"], [""]])
def test_stored_symbols_are_checked(symbols):
    with pytest.raises(DataError, match=r"symbol must|list of texts"):
        Vocabulary.from_dict({"separator": "", "symbols": symbols})


def test_labels_have_ids_in_their_order():
    labels = Labels(("z", "a"))
    assert len(labels) == 2
    assert [labels.index("z"), labels.index("a")] == [0, 1]
    assert "a" in labels
    assert "b" not in labels
    assert Labels.from_dict(json.loads(json.dumps(labels.to_dict()))) == labels


def test_unknown_label_is_named_beside_the_known_ones():
    with pytest.raises(DataError, match=r"^There is no label 'b'; known are z, a\.$"):
        Labels(("z", "a")).index("b")


def test_many_labels_are_shown_in_part():
    names = tuple(f"n{number:02}" for number in range(23))
    assert str(Labels(names)).endswith("n18, n19 and 3 more")
    assert str(Labels(names[:20])).endswith("n18, n19")


@pytest.mark.parametrize("names", [("a", "a"), ("a", "")])
def test_label_names_are_checked(names):
    with pytest.raises(DataError, match="label must"):
        Labels(names)


def test_stored_labels_of_another_form_are_refused():
    with pytest.raises(DataError, match="stored labels must have a list of texts named 'names'"):
        Labels.from_dict({"names": "AB"})
