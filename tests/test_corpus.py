import warnings

import numpy as np
import pytest

from seqssvae.config import DataConfig, ModelConfig
from seqssvae.data.corpus import Corpus, CorpusCounts, build_schema, encode_rows, label_prior
from seqssvae.data.tsv import Row
from seqssvae.data.vocabulary import Labels, Vocabulary
from seqssvae.errors import ConfigurationError, DataError


def rows_of(*pairs):
    return [Row(tuple(text), label, None, line) for line, (text, label) in enumerate(pairs, start=1)]


ROWS = rows_of(("abba", "B"), ("cab", None), ("bb", "A"), ("d", "B"))
SCHEMA = Vocabulary(("a", "b", "c", "d"), ""), Labels(("A", "B"))


def message_of(function, *arguments, **keywords):
    with pytest.raises(DataError) as caught:
        function(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_schema_is_sorted():
    assert build_schema(ROWS, DataConfig(), "f.tsv") == SCHEMA


def test_schema_keeps_the_separator_and_drops_rare_symbols():
    vocabulary, _ = build_schema(ROWS, DataConfig(separator="-", minimum_count=2), "f.tsv")
    assert vocabulary == Vocabulary(("a", "b"), "-")


def test_listed_labels_keep_their_order():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, labels = build_schema(ROWS, DataConfig(labels=["B", "A"]), "f.tsv")
    assert labels.names == ("B", "A")


def test_skipped_rows_and_cut_symbols_do_not_count():
    rows = rows_of(("ab", "A"), ("ab", "B"), ("abxyz", "C"))
    skipping = build_schema(rows, DataConfig(max_length=3), "f.tsv")
    assert skipping == (Vocabulary(("a", "b"), ""), Labels(("A", "B")))
    truncating = build_schema(rows, DataConfig(max_length=3, too_long="truncate"), "f.tsv")
    assert truncating == (Vocabulary(("a", "b", "x"), ""), Labels(("A", "B", "C")))


def test_no_labelled_row():
    rows = rows_of(("a", None), ("b", None))
    expected = "f.tsv: no row has a label in column 2; label some rows, or list the classes in data.labels."
    assert message_of(build_schema, rows, DataConfig(), "f.tsv") == expected
    assert "because data.label_column is 0;" in message_of(build_schema, rows, DataConfig(label_column=0), "f.tsv")


def test_no_labelled_row_of_listed_classes_is_a_warning():
    with pytest.warns(UserWarning, match=r"^f\.tsv: no row has a label, .* arbitrary") as caught:
        _, labels = build_schema(rows_of(("a", None)), DataConfig(labels=["A", "B"]), "f.tsv")
    assert labels.names == ("A", "B")
    assert len(caught) == 1


def test_listed_class_without_rows_is_a_warning():
    with pytest.warns(UserWarning, match="no row has the label C, so what it stands for is arbitrary"):
        build_schema(ROWS, DataConfig(labels=["A", "B", "C"]), "f.tsv")


def test_one_class_only():
    message = message_of(build_schema, rows_of(("a", "A"), ("b", None), ("c", "A")), DataConfig(), "f.tsv")
    assert message.startswith("f.tsv: all labelled rows have the same label, 'A'; label rows of at least two classes")


def test_all_symbols_rare():
    assert "lower data.minimum_count" in message_of(build_schema, ROWS, DataConfig(minimum_count=9), "f.tsv")


def test_all_rows_too_long():
    expected = "f.tsv: every sequence is longer than 2 symbols; raise data.max_length, or set data.too_long: truncate."
    rows = rows_of(("abc", "A"), ("abcd", "B"))
    assert message_of(build_schema, rows, DataConfig(max_length=2), "f.tsv") == expected
    assert message_of(encode_rows, rows, *SCHEMA, DataConfig(max_length=2), "f.tsv") == expected


def test_encoded_rows():
    corpus = encode_rows(ROWS, *SCHEMA, DataConfig(), "f.tsv")
    assert [sequence.tolist() for sequence in corpus.sequences] == [[4, 5, 5, 4, 3], [6, 4, 5, 3], [5, 5, 3], [7, 3]]
    assert corpus.y.tolist() == [1, -1, 0, 1]
    assert corpus.lengths.tolist() == [5, 4, 3, 2]
    assert len(corpus) == 4
    assert corpus.origin == "f.tsv"
    assert corpus.counts == CorpusCounts(rows=4, skipped=0, truncated=0, unknown_symbols=0)


def test_unknown_symbols_are_counted():
    corpus = encode_rows(rows_of(("axbx", "A"), ("y", None)), *SCHEMA, DataConfig(), "f.tsv")
    assert corpus.sequences[0].tolist() == [4, 1, 5, 1, 3]
    assert corpus.counts.unknown_symbols == 3


def test_long_rows_are_skipped_and_counted():
    corpus = encode_rows(ROWS, *SCHEMA, DataConfig(max_length=3), "f.tsv")
    assert corpus.y.tolist() == [-1, 0, 1]
    assert corpus.counts == CorpusCounts(rows=4, skipped=1, truncated=0, unknown_symbols=0)


def test_long_rows_are_truncated_and_counted():
    data = DataConfig(max_length=2, too_long="truncate")
    corpus = encode_rows(ROWS, *SCHEMA, data, "f.tsv")
    assert [sequence.tolist() for sequence in corpus.sequences] == [[4, 5, 3], [6, 4, 3], [5, 5, 3], [7, 3]]
    assert corpus.counts == CorpusCounts(rows=4, skipped=0, truncated=2, unknown_symbols=0)
    assert encode_rows(ROWS, *SCHEMA, data, "f.tsv", too_long="skip").counts.skipped == 2


def test_limit_counts_symbols_without_end():
    corpus = encode_rows(rows_of(("abc", "A")), *SCHEMA, DataConfig(max_length=3), "f.tsv")
    assert corpus.lengths.tolist() == [4]


def test_label_never_seen_in_training():
    rows = [Row(("a",), "A", None, 7), Row(("a",), "Z", None, 9)]
    assert message_of(encode_rows, rows, *SCHEMA, DataConfig(), "test.tsv") == (
        "test.tsv:9: the label 'Z' was never seen in training (known are A, B); correct it, or leave it empty if it is "
        "missing."
    )


def test_groups_are_kept():
    rows = [Row(("a",), None, "g", 1), Row(("b",), None, None, 2)]
    assert encode_rows(rows, *SCHEMA, DataConfig(), "f.tsv").groups == ("g", None)


def test_take_keeps_rows_together():
    rows = [row._replace(group=f"g{row.line}") for row in ROWS]
    corpus = encode_rows(rows, *SCHEMA, DataConfig(), "f.tsv").take(np.array([3, 0]))
    assert [sequence.tolist() for sequence in corpus.sequences] == [[7, 3], [4, 5, 5, 4, 3]]
    assert corpus.y.tolist() == [1, 1]
    assert corpus.groups == ("g4", "g1")
    assert corpus.lengths.tolist() == [2, 5]
    assert len(corpus.take(np.arange(0))) == 0


def test_with_labels_replaces_labels_alone():
    corpus = encode_rows(ROWS, *SCHEMA, DataConfig(), "f.tsv")
    hidden = corpus.with_labels(np.full(4, -1))
    assert hidden.y.tolist() == [-1] * 4
    assert hidden.sequences is corpus.sequences
    assert corpus.y.tolist() == [1, -1, 0, 1]
    with pytest.raises(ValueError, match="4 entries, one for each row, not 3"):
        corpus.with_labels(np.zeros(3, dtype=np.int32))


def test_corpus_from_memory_needs_no_file():
    corpus = Corpus((np.array([4, 3]),), np.array([0]), (None,), "memory", CorpusCounts(1, 0, 0, 0))
    assert corpus.lengths.tolist() == [2]


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
