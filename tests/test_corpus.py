import dataclasses
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssvae.config import DataConfig, ModelConfig
from seqssvae.data.corpus import Corpus, CorpusCounts, encode_table, limit_lengths
from seqssvae.data.padding import pad
from seqssvae.data.schema import Schema, build_schema, label_prior
from seqssvae.data.table import Table
from seqssvae.data.vocabulary import Labels, Vocabulary
from seqssvae.errors import ConfigurationError, DataError


def table_of(*pairs, origin="f.tsv", **columns):
    texts, labels = zip(*pairs, strict=True)
    return Table.from_rows(texts, labels, origin=origin, **columns)


ROWS = table_of(("abba", "B"), ("cab", None), ("bb", "A"), ("d", "B"))
SCHEMA = Schema(Vocabulary(("a", "b", "c", "d"), ""), Labels(("A", "B")), (0.5, 0.5))


def learn(table, data):
    return build_schema(limit_lengths(table, data).table, data)


def message_of(function, *arguments, **keywords):
    with pytest.raises(DataError) as caught:
        function(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_schema_is_sorted():
    assert learn(ROWS, DataConfig()) == SCHEMA


def test_schema_keeps_the_separator_and_drops_rare_symbols():
    schema = learn(ROWS, DataConfig(separator="-", minimum_count=2))
    assert schema.vocabulary == Vocabulary(("a", "b"), "-")


def test_listed_labels_keep_their_order():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schema = learn(ROWS, DataConfig(labels=["B", "A"]))
    assert schema.labels.names == ("B", "A")


def test_skipped_rows_and_cut_symbols_do_not_count():
    rows = table_of(("ab", "A"), ("ab", "B"), ("abxyz", "C"))
    skipping = learn(rows, DataConfig(max_length=3))
    assert (skipping.vocabulary.symbols, skipping.labels.names) == (("a", "b"), ("A", "B"))
    truncating = learn(rows, DataConfig(max_length=3, too_long="truncate"))
    assert (truncating.vocabulary.symbols, truncating.labels.names) == (("a", "b", "x"), ("A", "B", "C"))
    assert truncating.label_prior == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_no_labelled_row():
    rows = table_of(("a", None), ("b", None))
    expected = "f.tsv: no row has a label in column 2; label some rows, or list the classes in data.labels."
    assert message_of(learn, rows, DataConfig()) == expected
    assert "because data.label_column is 0;" in message_of(learn, rows, DataConfig(label_column=0))


def test_no_labelled_row_of_listed_classes_is_a_warning():
    with pytest.warns(UserWarning, match=r"^f\.tsv: no row has a label, .* arbitrary") as caught:
        schema = learn(table_of(("a", None)), DataConfig(labels=["A", "B"]))
    assert schema.labels.names == ("A", "B")
    assert len(caught) == 1


def test_listed_class_without_rows_is_a_warning():
    with pytest.warns(UserWarning, match="no row has the label C, so what it stands for is arbitrary"):
        learn(ROWS, DataConfig(labels=["A", "B", "C"]))


def test_one_class_only():
    message = message_of(learn, table_of(("a", "A"), ("b", None), ("c", "A")), DataConfig())
    assert message.startswith("f.tsv: all labelled rows have the same label, 'A'; label rows of at least two classes")


def test_all_symbols_rare():
    assert "lower data.minimum_count" in message_of(learn, ROWS, DataConfig(minimum_count=9))


def test_all_rows_too_long():
    expected = "f.tsv: every sequence is longer than 2 symbols; raise data.max_length, or set data.too_long: truncate."
    rows = table_of(("abc", "A"), ("abcd", "B"))
    assert message_of(limit_lengths, rows, DataConfig(max_length=2)) == expected
    assert message_of(encode_table, rows, SCHEMA, DataConfig(max_length=2)) == expected


def test_encoded_rows():
    corpus = encode_table(ROWS, SCHEMA, DataConfig())
    assert [sequence.tolist() for sequence in corpus.sequences] == [[4, 5, 5, 4, 3], [6, 4, 5, 3], [5, 5, 3], [7, 3]]
    assert corpus.y.tolist() == [1, -1, 0, 1]
    assert corpus.lengths.tolist() == [5, 4, 3, 2]
    assert len(corpus) == 4
    assert corpus.origin == "f.tsv"
    assert corpus.counts == CorpusCounts(rows=4, skipped=0, truncated=0, unknown_symbols=0)


def test_unknown_symbols_are_counted():
    corpus = encode_table(table_of(("axbx", "A"), ("y", None)), SCHEMA, DataConfig())
    assert corpus.sequences[0].tolist() == [4, 1, 5, 1, 3]
    assert corpus.counts.unknown_symbols == 3


def test_long_rows_are_skipped_and_counted():
    corpus = encode_table(ROWS, SCHEMA, DataConfig(max_length=3))
    assert corpus.y.tolist() == [-1, 0, 1]
    assert corpus.counts == CorpusCounts(rows=4, skipped=1, truncated=0, unknown_symbols=0)


def test_long_rows_are_truncated_and_counted():
    data = DataConfig(max_length=2, too_long="truncate")
    corpus = encode_table(ROWS, SCHEMA, data)
    assert [sequence.tolist() for sequence in corpus.sequences] == [[4, 5, 3], [6, 4, 3], [5, 5, 3], [7, 3]]
    assert corpus.counts == CorpusCounts(rows=4, skipped=0, truncated=2, unknown_symbols=0)
    assert encode_table(ROWS, SCHEMA, data, too_long="skip").counts.skipped == 2


def test_limit_counts_symbols_without_end():
    corpus = encode_table(table_of(("abc", "A")), SCHEMA, DataConfig(max_length=3))
    assert corpus.lengths.tolist() == [4]


def test_label_never_seen_in_training():
    rows = table_of(("a", "A"), ("a", "Z"), ("b", "Y"), origin="test.tsv")
    rows = dataclasses.replace(rows, lines=np.array([7, 9, 11]))
    assert message_of(encode_table, rows, SCHEMA, DataConfig()) == (
        "test.tsv:9: the label 'Z' was never seen in training (known are A, B); correct it, or leave it empty if it is "
        "missing."
    )


def test_a_label_that_no_row_has_is_no_mistake():
    rows = table_of(("a", "A"), ("a", "Z"), ("b", "B")).take(np.array([2, 0]))
    assert encode_table(rows, SCHEMA, DataConfig()).y.tolist() == [1, 0]


def test_groups_are_kept():
    rows = table_of(("a", None), ("b", None), ("c", None), groups=["g", None, "h"])
    assert encode_table(rows, SCHEMA, DataConfig()).groups.tolist() == [0, -1, 1]


def test_take_keeps_rows_together():
    rows = table_of(*zip(ROWS.sequences, ROWS.labels, strict=True), groups=["g1", "g2", "g3", "g4"])
    corpus = encode_table(rows, SCHEMA, DataConfig()).take(np.array([3, 0]))
    assert [sequence.tolist() for sequence in corpus.sequences] == [[7, 3], [4, 5, 5, 4, 3]]
    assert corpus.y.tolist() == [1, 1]
    assert corpus.groups.tolist() == [3, 0]
    assert corpus.lengths.tolist() == [2, 5]
    assert len(corpus.take(np.arange(0))) == 0


SYMBOLS = st.lists(st.sampled_from("abcdxy"), min_size=1, max_size=6).map(tuple)


@given(
    st.lists(st.tuples(SYMBOLS, SYMBOLS, st.sampled_from(["A", "B", None])), min_size=1, max_size=12),
    st.integers(1, 7),
    st.sampled_from(["skip", "truncate"]),
    st.booleans(),
)
def test_encoding_is_what_a_loop_over_rows_does(rows, max_length, too_long, has_sources):
    schema = dataclasses.replace(SCHEMA, source_vocabulary=Vocabulary(("b", "x"), "") if has_sources else None)
    table = table_of(*((x, label) for x, _, label in rows), sources=[x for _, x, _ in rows] if has_sources else None)
    fits = [max(len(x), len(source) * has_sources) <= max_length for x, source, _ in rows]
    kept = [row for row, fit in zip(rows, fits, strict=True) if fit or too_long == "truncate"]
    data = DataConfig(max_length=max_length, too_long=too_long)
    if not kept:
        assert "every sequence is longer" in message_of(encode_table, table, schema, data)
        return
    corpus = encode_table(table, schema, data)
    x = [[*({"a": 4, "b": 5, "c": 6, "d": 7}.get(symbol, 1) for symbol in x[:max_length]), 3] for x, _, _ in kept]
    source = [[*({"b": 4, "x": 5}.get(symbol, 1) for symbol in x[:max_length]), 3] for _, x, _ in kept]
    assert [row.tolist() for row in corpus.sequences] == x
    assert has_sources == (corpus.sources is not None)
    assert [row.tolist() for row in corpus.sources or []] == source * has_sources
    assert corpus.y.tolist() == [{"A": 0, "B": 1, None: -1}[label] for *_, label in kept]
    long, unknown = fits.count(False), sum(row.count(1) for row in x + source * has_sources)
    assert corpus.counts == (len(rows), *((long, 0) if too_long == "skip" else (0, long)), unknown)
    assert corpus.sequences.values.dtype == corpus.y.dtype == np.int32


def test_a_posterior_goes_with_its_rows():
    rows = np.array([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])
    corpus = Corpus.from_sequences([[4, 3], [5, 3], [3]], [-1, -1, 1]).with_posterior(rows)
    np.testing.assert_array_equal(corpus.take(np.array([2, 0])).posterior, rows[[2, 0]])
    batch = pad(corpus, np.array([1, 2]), 3, 2)
    np.testing.assert_array_equal(batch.posterior, [[1.0, 0.0], [0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_array_equal(batch.take(np.array([1])).posterior, rows[[2]])
    for wrong in (rows[:2], rows * 2, np.array([[2.0, -1.0]] * 3)):
        with pytest.raises(ValueError, match="posterior must have 3 rows of probabilities that sum to 1"):
            corpus.with_posterior(wrong)


def test_with_labels_replaces_labels_alone():
    corpus = encode_table(ROWS, SCHEMA, DataConfig())
    hidden = corpus.with_labels(np.full(4, -1))
    assert hidden.y.tolist() == [-1] * 4
    assert hidden.sequences is corpus.sequences
    assert corpus.y.tolist() == [1, -1, 0, 1]
    with pytest.raises(ValueError, match="4 entries, one for each row, not 3"):
        corpus.with_labels(np.zeros(3, dtype=np.int32))


def test_a_corpus_of_encoded_rows_needs_no_table():
    corpus = Corpus.from_sequences([[4, 3], np.array([3])], [0, -1], [[5, 5, 3], [3]], "here")
    assert corpus.lengths.tolist() == [2, 1]
    assert corpus.sources.lengths.tolist() == [3, 1]
    assert corpus.groups.tolist() == [-1, -1]
    assert corpus.counts == CorpusCounts(2, 0, 0, 0)
    assert (corpus.origin, corpus.y.dtype) == ("here", np.int32)


def test_uniform_prior():
    assert label_prior(ModelConfig(), Labels(("a", "b", "c", "d")), np.array([0, 0, -1])) == (0.25,) * 4


def test_empirical_prior_counts_observed_labels_and_one_each():
    prior = label_prior(ModelConfig(label_prior="empirical"), Labels(("a", "b", "c")), np.array([0, -1, 0, -1, 1, -1]))
    assert prior == pytest.approx((3 / 6, 2 / 6, 1 / 6))


def test_given_prior():
    model = ModelConfig(label_prior="given", label_prior_probabilities=[0.2, 0.8])
    assert label_prior(model, Labels(("a", "b")), np.array([0])) == (0.2, 0.8)
    with pytest.raises(ConfigurationError, match=r"model.label_prior_probabilities .* each label \(a, b, c\), not"):
        label_prior(model, Labels(("a", "b", "c")), np.array([0]))
