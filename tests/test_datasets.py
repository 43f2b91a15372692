"""The data sets of the demonstration."""

import builtins
import importlib.util
import os
from collections import Counter

import pytest

from seqssvae import datasets
from seqssvae.config import DataConfig
from seqssvae.data.files import read_table
from seqssvae.datasets import languages
from seqssvae.errors import DataError, UserError

needs_wordfreq = pytest.mark.skipif(importlib.util.find_spec("wordfreq") is None, reason="needs seqssvae[demo]")


def test_peptides_are_all_there():
    table = datasets.load_peptides()
    assert Counter(table.labels) == {"AMP": 2540, "UniProt": 2080}
    assert len(set(table.sequences)) == 4620
    assert set(table.sequences.symbols) == set("ACDEFGHIKLMNPQRSTVWY")
    assert {*map(len, table.sequences)} >= {7, 174}
    assert "".join(table.sequences[0]) == "GLWSKIKEVGKEAAKAAAKAAGKAALGAVSEAV"
    assert table.labels[0] == "AMP"


def test_peptides_have_source_and_licence_beside_them():
    folder = datasets.peptides_path().parent
    assert "modlAMP" in (folder / "README.md").read_text(encoding="utf-8")
    assert "BSD 3-Clause License" in (folder / "peptides.LICENSE.txt").read_text(encoding="utf-8")


FREQUENCIES = {
    "en": {"the": 0.5, "in": 0.25, "cat": 0.125, "it's": 0.125, "42": 0.125, "bat": 0.125, "lone": 0.0625},
    "de": {"in": 0.25, "die": 0.5, "cat": 0.025, "bat": 0.03125},
    "fr": {"lone": 0.015625},
}


def test_characteristic_words_are_alphabetic_and_five_times_more_frequent():
    # in: as frequent in German; cat: exactly five times rarer there; bat: four times; lone: four times in French
    assert languages.characteristic_words(FREQUENCIES, "en", 2) == ["the", "cat"]
    with pytest.raises(DataError, match="word list of 'en' has 2 characteristic words, not 3"):
        languages.characteristic_words(FREQUENCIES, "en", 3)


def test_equally_frequent_words_are_in_alphabetical_order():
    frequencies = {"en": {"c": 0.1, "a": 0.1, "b": 0.2}, "de": {}}
    assert languages.characteristic_words(frequencies, "en", 3) == ["b", "a", "c"]


@needs_wordfreq
def test_the_words_of_languages(tmp_path):
    path = tmp_path / "languages.tsv"
    datasets.build_languages(path)
    table = read_table(path, DataConfig())
    assert Counter(table.labels) == dict.fromkeys(languages.LANGUAGES, 2500)
    assert len(languages.LANGUAGES) == 12
    words = dict(zip(table.sequences.joined(""), table.labels, strict=True))
    assert len(words) == len(table) == 30_000
    assert all(word.isalpha() for word in words)
    assert [words[word] for word in ("the", "und", "avec", "jsem", "için")] == ["en", "de", "fr", "cs", "tr"]
    assert os.listdir(tmp_path) == ["languages.tsv"]

    from wordfreq import word_frequency

    for word, language in list(words.items())[::100]:
        others = [word_frequency(word, other) for other in languages.LANGUAGES if other != language]
        assert word_frequency(word, language) >= 5 * max(others)


@pytest.fixture
def few_words(monkeypatch):
    frequencies = {language: {"x" * number: 1.0} for number, language in enumerate(languages.LANGUAGES, start=1)}
    monkeypatch.setattr(languages, "_frequencies", lambda: frequencies)
    monkeypatch.setattr(languages, "WORDS_PER_LANGUAGE", 1)


@pytest.mark.usefixtures("few_words")
def test_languages_file_has_a_word_and_its_language_on_each_line(tmp_path):
    path = tmp_path / "languages.tsv"
    path.write_text("old")
    datasets.build_languages(path)
    lines = path.read_bytes().decode().split("\n")
    assert lines[:2] == ["x\tcs", "xx\tde"]
    assert len(lines) == 13


@pytest.mark.usefixtures("few_words")
def test_languages_file_that_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match=r"languages\.tsv: the file cannot be written \(No such file or directory\)"):
        datasets.build_languages(tmp_path / "none" / "languages.tsv")


@pytest.mark.usefixtures("few_words")
def test_nothing_half_written_remains(tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(DataError, match="No space left on device"):
        datasets.build_languages(tmp_path / "languages.tsv")
    assert os.listdir(tmp_path) == []


def test_missing_wordfreq_names_the_extra(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def without_wordfreq(name, *arguments, **keywords):
        if name == "wordfreq":
            raise ModuleNotFoundError("No module named 'wordfreq'", name="wordfreq")
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_wordfreq)
    with pytest.raises(UserError, match=r"pip install 'seqssvae\[demo\]'"):
        datasets.build_languages(tmp_path / "languages.tsv")
