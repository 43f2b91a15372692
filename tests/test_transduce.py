"""Sequences that are made from a source: rows, batches, what is made of them, command line, scikit-learn's way."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import assert_one_error
from toy_runs import latest

from seqssvae.cli.main import main
from seqssvae.config import Config, DataConfig, DecodingOptions, TrainingConfig
from seqssvae.data.batches import BatchStream, evaluation_batches
from seqssvae.data.corpus import encode_table
from seqssvae.data.files import read_table
from seqssvae.data.prepare import prepare_table
from seqssvae.data.ragged import RaggedArray
from seqssvae.data.schema import build_schema
from seqssvae.data.table import Table
from seqssvae.data.vocabulary import END, PAD, Vocabulary
from seqssvae.errors import DataError
from seqssvae.estimator.sequence_ssvae import SequenceSSVAE
from seqssvae.inference.transduce import transduce
from seqssvae.runs.files import corpus_digest
from seqssvae.runs.run import open_run

ENGLISH = Path(__file__).parent / "data/english.tsv"
DATA = DataConfig(sequence_column=2, label_column=3, source_column=1)
SETTINGS = {
    "data": {"sequence_column": 2, "label_column": 3, "source_column": 1},
    "model": {
        "latent_size": 2,
        "encoder": {"embedding_size": 6, "hidden_size": 8},
        "decoder": {"embedding_size": 6, "hidden_size": 8, "conditioning": "every_step"},
    },
    "training": {"epochs": 2, "batch_size": 32, "labelled_batch_size": 16, "buckets": 2},
}


# Rows and batches


def test_rows_have_their_source(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text("go\tw e n t\tVBD\nsee\ts e e n\t\n")
    data = DataConfig(sequence_column=2, label_column=3, source_column=1, separator=" ")
    table = read_table(path, data)
    assert list(table.sequences) == [tuple("went"), tuple("seen")]
    assert list(table.sources) == [tuple("go"), tuple("see")]
    assert list(table.labels) == ["VBD", None]
    alone = read_table(path, data, labelled=False, targets=False)
    assert (list(alone.sequences), list(alone.sources)) == ([(), ()], [tuple("go"), tuple("see")])
    path.write_text("\tw e n t\tVBD\n")
    with pytest.raises(DataError, match=r"rows.tsv:1: the source is empty; remove the line, or see data.source_column"):
        read_table(path, data)
    path.write_text("w e n t\tVBD\n")
    with pytest.raises(DataError, match=r"there is no column 4 among 2 columns; set data.source_column to the column"):
        read_table(path, DataConfig(source_column=4, separator=" "))


def test_a_source_has_symbols_of_its_own_and_may_be_too_long():
    table = Table.from_rows(["ab", "b"] * 4, ["A", None] * 4, sources=["xyz", "x"] * 4)
    prepared = prepare_table(table, Config(data=DataConfig(source_column=3, labels=["A", "B"])))
    schema = prepared.schema
    assert schema.source_vocabulary == Vocabulary(("x", "y", "z"), "")
    assert schema.dimensions.source_vocabulary_size == 7
    table, shorter = table.take(np.arange(2)), DataConfig(source_column=3, max_length=2)
    assert len(encode_table(table, schema, shorter)) == 1
    cut = encode_table(table, schema, shorter, "truncate")
    assert [source.tolist() for source in cut.sources] == [[4, 5, END], [4, END]]
    assert cut.counts.truncated == 1
    assert cut.take(np.array([1])).sources[0].tolist() == [4, END]
    other = encode_table(Table.from_rows(["ab"], ["A"], sources=["x?"]), schema, shorter, "truncate")
    assert other.counts.unknown_symbols == 1
    assert corpus_digest(other) != corpus_digest(cut.take(np.array([0])))
    table = Table.from_rows(["ab", "b"], ["A", "B"], sources=["xy", "z"])
    with pytest.raises(DataError, match="memory: no symbol of sources occurs 2 times; lower"):
        build_schema(table, DataConfig(source_column=3, minimum_count=2, labels=["A", "B"]))
    with pytest.raises(DataError, match=r"the model has sources; set data.source_column"):
        encode_table(Table.from_rows(["ab"], ["A"]), schema, shorter)


def test_batches_have_sources_of_one_length_for_each_bucket():
    prepared = prepare_table(read_table(ENGLISH, DATA), Config(data=DATA))
    corpus = prepared.training
    stream = BatchStream(corpus, np.arange(len(corpus)), 16, (7, 9, 20), seed=1)
    lengths = {steps: set() for steps in (7, 9, 20)}
    seen = []
    for batch in [*stream.epoch(0), *stream.epoch(1)]:
        lengths[batch.x.shape[1]].add(batch.source_steps)
        for source, row in zip(batch.source, batch.rows, strict=True):
            expected = [] if row < 0 else corpus.sources[row].tolist()
            assert source.tolist() == expected + [PAD] * (batch.source_steps - len(expected))
            seen.append(int(row))
    assert all(len(steps) == 1 for steps in lengths.values())
    assert sorted(row for row in seen if row >= 0) == sorted([*range(len(corpus))] * 2)
    whole = list(evaluation_batches(corpus, 64, (20,)))
    assert {batch.source_steps for batch in whole} == {max(map(len, corpus.sources))}
    part = whole[0].take(np.array([2, 0]))
    np.testing.assert_array_equal(part.source, whole[0].source[[2, 0]])


# What is made of sources


class Backwards:
    """Makes of a source its symbols from the last to the first, behind the label; prefers label 2 for what is odd."""

    def __init__(self):
        self.calls = []

    def classify_source(self, source):
        odd = (source > END).sum(1) % 2
        return np.where(odd[:, None] == 1, [0, 0, 1.0], [1.0, 0, 0])

    def generate(self, y, options, seed, source, use_mean):
        self.calls.append((source.shape, seed, options, use_mean))
        rows = [[8 + label, *[s for s in row[::-1] if s > END], END] for row, label in zip(source, y, strict=True)]
        x = np.array([row + [PAD] * (options.max_length + 1 - len(row)) for row in rows], np.int32)
        return x, -np.arange(len(y), dtype=float)


def test_sequences_come_in_the_order_of_their_sources():
    vocabulary = Vocabulary(tuple("abcd012"), "")
    texts = ["ab", "abcd", "a", "dc", "bcd", "c"]
    sources = RaggedArray.from_rows([*(4 + "abcd".index(symbol) for symbol in text), END] for text in texts)
    y = np.array([1, -1, -1, 0, 1, 2])
    backend, config = Backwards(), Config(training=TrainingConfig(batch_size=2, buckets=2))
    transduced = transduce(backend, vocabulary, sources, y, config, DecodingOptions(8, "greedy"))
    assert ["".join(one.symbols) for one in transduced] == ["1ba", "0dcba", "2a", "0cd", "1dcb", "2c"]
    assert [one.label for one in transduced] == [1, 0, 2, 0, 1, 2]
    assert all(one.ended for one in transduced)
    assert {(options, use_mean) for *_, options, use_mean in backend.calls} == {(DecodingOptions(8, "greedy"), True)}
    assert len({shape for shape, *_ in backend.calls}) == 2
    assert len({seed for _, seed, *_ in backend.calls}) == len(backend.calls)
    options = DecodingOptions(8, temperature=0.5, top_p=0.9)
    transduce(backend, vocabulary, sources, y, config, options)
    assert backend.calls[-1][2:] == (options, False)
    assert transduce(backend, vocabulary, sources.take(np.arange(0)), y[:0], config, options) == []


# The command line


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on English verbs and adjectives."""
    place = tmp_path_factory.mktemp("transduction")
    (place / "english.yaml").write_text(yaml.safe_dump(SETTINGS))
    fit = [
        "fit",
        "--recipe=ssvae",
        "--config",
        str(place / "english.yaml"),
        "--backend",
        "torch",
        "--output",
        str(place / "run"),
    ]
    assert main([*fit, "--data.train", str(ENGLISH)]) == 0
    return place / "run"


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter="\t"))


def test_a_run_keeps_the_symbols_of_sources(run):
    opened = open_run(run)
    assert opened.schema.source_vocabulary.symbols == tuple(sorted({s for row in rows_of(ENGLISH) for s in row[0]}))
    assert json.loads((latest(run) / "vocabulary.json").read_text())["source_vocabulary"]["separator"] == ""
    assert opened.backend.ssvae.has_source


def test_transduce_writes_a_sequence_for_each_source(run, tmp_path, capsys):
    given, output = tmp_path / "given.tsv", tmp_path / "out.tsv"
    given.write_text("hazy\thazier\tJJR\nwant\twants\t\nhappy\thappiest\tJJS\n")
    command = ["transduce", str(run), "--data", str(given), "--output", str(output), "--max-length", "12"]
    assert main([*command, "--score"]) == 0
    assert "of 3 sequences" in capsys.readouterr().out
    header, *rows = rows_of(output)
    assert header == ["source", "sequence", "label", "log_p"]
    assert [row[0] for row in rows] == ["hazy", "want", "happy"]
    assert (rows[0][2], rows[2][2]) == ("JJR", "JJS")
    opened = open_run(run)
    sources = opened.schema.source_vocabulary
    likely = opened.backend.classify_source(sources.encode("want")[None])[0].argmax()
    assert rows[1][2] == opened.labels.names[likely]
    for source, text, label, log_p in rows:  # the score is that of the sequence, at the mean of z
        y, ids = np.array([opened.labels.index(label)], np.int32), sources.encode(source)[None]
        x, scores = opened.backend.generate(y, DecodingOptions(12, "greedy"), 0, source=ids, use_mean=True)
        assert "".join(opened.vocabulary.decode(x[0])[:12]) == text
        assert float(log_p) == pytest.approx(float(scores[0]), abs=1e-4)
    only = tmp_path / "only.tsv"
    only.write_text("hazy\nwant\n")
    again = ["transduce", str(run), "--data", str(only), "--output", str(output), "--max-length", "12", "--overwrite"]
    assert main([*again, "--label-column", "0"]) == 0
    assert rows_of(output)[2][:3] == rows[1][:3]
    assert main([*again, "--label-column", "0", "--backend", "jax"]) == 0
    assert rows_of(output)[2][:3] == rows[1][:3]


def test_all_labels_are_transduced_for_each_source(run, tmp_path, capsys):
    given = tmp_path / "given.tsv"
    given.write_text("hazy\nwant\n")
    command = ["transduce", str(run), "--data", str(given), "--max-length", "12", "--method", "beam"]
    assert main([*command, "--output", str(tmp_path / "all.tsv"), "--all-labels"]) == 0
    names = open_run(run).labels.names
    rows = rows_of(tmp_path / "all.tsv")[1:]
    assert [(row[0], row[2]) for row in rows] == [(source, name) for source in ("hazy", "want") for name in names]
    given.write_text("".join(f"{source}\tform\t{label}\n" for source, _, label, _ in rows))  # each label by itself
    assert main([*command, "--output", str(tmp_path / "each.tsv")]) == 0
    each = rows_of(tmp_path / "each.tsv")[1:]
    assert [row[:3] for row in each] == [row[:3] for row in rows]
    assert [float(row[3]) for row in each] == pytest.approx([float(row[3]) for row in rows], abs=1e-4)
    capsys.readouterr()
    for other in (["--score"], ["--label-column", "3"]):
        assert main([*command, "--output", str(tmp_path / "not.tsv"), "--all-labels", *other]) == 2
        assert_one_error(capsys, "--all-labels makes a sequence for every label; leave --score and --label-column out.")


def test_other_commands_take_sources(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--data", str(ENGLISH), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["rows"] == metrics["labelled_rows"] == 200
    assert metrics["elbo"] == pytest.approx(metrics["reconstruction"] - metrics["kl_z"] - metrics["kl_y"])
    for command in ("predict", "encode"):
        assert main([command, str(run), "--data", str(ENGLISH), "--output", str(tmp_path / command)]) == 0
        assert len(rows_of(tmp_path / command)) == 201
    capsys.readouterr()
    generate = ["generate", str(run), "--label", "VBG", "--count", "3", "--max-length", "9"]
    assert main([*generate, "--source", "walk"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(generate) == 2
    assert "has sources; give one by --source" in capsys.readouterr().err
    without = tmp_path / "without.tsv"
    without.write_text("hazier\tJJR\n")
    assert main(["evaluate", str(run), "--data", str(without), "--sequence-column", "1", "--label-column", "2"]) == 2
    assert "data.source_column must be another column" in capsys.readouterr().err


def test_rows_with_sources_are_relabelled_and_have_neighbours(run, capsys):
    generate = ["generate", str(run), "--label", "VBG", "--max-length", "9"]
    assert main([*generate, "--like", "walked", "--source", "walk"]) == 0
    ((text, label, log_p),) = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    opened = open_run(run)
    x, source = opened.vocabulary.encode("walked")[None], opened.schema.source_vocabulary.encode("walk")[None]
    own = opened.backend.classify(x, source)[0].argmax()
    z = opened.backend.latents(x, source).loc[:, own]
    y = np.array([opened.labels.index("VBG")], np.int32)
    ids, score = opened.backend.generate(y, DecodingOptions(9, "greedy"), 0, z=z, source=source)
    assert (text, label) == (opened.vocabulary.join(opened.vocabulary.decode(ids[0])[:9]), "VBG")
    assert float(log_p) == pytest.approx(float(score[0]), rel=1e-5)
    assert main([*generate, "--interpolate", "walked", "talks", "--source", "walk", "--count", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["neighbors", str(run), "--data", str(ENGLISH), "--query", "walked", "--source", "walk"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert main([*generate, "--like", "walked", "--source", ""]) == 2
    assert "the text '' has no symbol" in capsys.readouterr().err


def test_a_list_of_sources_will_do_whatever_the_columns_of_training(run, tmp_path):
    """Here sequences stood in column 2, and now sources do."""
    given, output = tmp_path / "given.tsv", tmp_path / "out.tsv"
    given.write_text("1\thazy\n2\twant\n")
    command = ["transduce", str(run), "--data", str(given), "--output", str(output), "--max-length", "12"]
    assert main([*command, "--source-column", "2", "--label-column", "0"]) == 0
    assert [row[0] for row in rows_of(output)[1:]] == ["hazy", "want"]


def test_a_run_without_sources_says_so(run, tmp_path, capsys):
    settings = {**SETTINGS, "data": {**SETTINGS["data"], "source_column": 0}}
    (tmp_path / "without.yaml").write_text(yaml.safe_dump(settings))
    fit = [
        "fit",
        "--recipe=ssvae",
        "--config",
        str(tmp_path / "without.yaml"),
        "--backend",
        "torch",
        "--output",
        str(tmp_path / "run"),
    ]
    assert main([*fit, "--data.train", str(ENGLISH), "--training.epochs", "1"]) == 0
    for column in ([], ["--source-column", "1"]):
        given = ["--data", str(ENGLISH), "--output", str(tmp_path / "out"), *column]
        assert main(["transduce", str(tmp_path / "run"), *given]) == 2
        assert "has no sources: it was trained with data.source_column: 0" in capsys.readouterr().err
    assert main(["generate", str(tmp_path / "run"), "--label", "VBG", "--source", "walk"]) == 2
    assert "has no sources; leave --source out" in capsys.readouterr().err
    assert main(["generate", str(run), "--label", "VBG", "--source", ""]) == 2
    assert "--source must have 1 to 256 symbols, not 0" in capsys.readouterr().err
    (latest(tmp_path / "run") / "vocabulary.json").write_bytes((latest(run) / "vocabulary.json").read_bytes())
    assert main(["verify", str(tmp_path / "run"), "--no-verify"]) == 2
    assert (
        "vocabulary.json has a source_vocabulary, but config.yaml has data.source_column: 0" in capsys.readouterr().err
    )


# scikit-learn's conventions


def test_an_estimator_with_sources(tmp_path):
    lemmas, forms, labels = (list(column) for column in zip(*rows_of(ENGLISH), strict=True))
    y = [label if index < 60 else None for index, label in enumerate(labels)]
    flat = {"hidden_size": 8, "embedding_size": 6, "decoder_hidden_size": 8, "latent_size": 2, "epochs": 2}
    model = SequenceSSVAE(backend="torch", recipe="ssvae", max_length=14, **flat).fit(forms, y, source=lemmas)
    probabilities = model.predict_proba(forms[:5], lemmas[:5])
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    assert not np.allclose(probabilities, model.predict_proba(forms[:5], lemmas[5:10]))
    assert model.transform(forms[:5], lemmas[:5]).shape == (5, 2)
    assert 0 <= model.score(forms, labels, lemmas) <= 1
    made = model.transduce(lemmas[:4], ["VBG", None, "JJR", "VBZ"])
    assert [type(text) for text in made] == [str] * 4
    assert len(model.sample("VBG", 2, source="walk")) == 2
    model.save(tmp_path / "run")
    again = SequenceSSVAE.load(tmp_path / "run")
    assert again.transduce(lemmas[:4], ["VBG", None, "JJR", "VBZ"]) == made
    for wrong in (lambda: model.predict(forms), lambda: model.sample("VBG")):
        with pytest.raises(DataError, match="source must be given where, and only where, it was given to fit"):
            wrong()
    with pytest.raises(DataError, match="source must have an entry for each of the 200 sequences, not 3"):
        model.fit(forms, y, source=lemmas[:3])
    with pytest.raises(DataError, match="There is no label 'NN'"):
        model.transduce(lemmas[:1], ["NN"])
    with pytest.raises(DataError, match="was fitted without sources"):
        SequenceSSVAE(backend="torch", recipe="ssvae", **flat).fit(forms, y).transduce(lemmas)
