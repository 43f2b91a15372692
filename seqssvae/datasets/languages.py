"""Frequent words of twelve languages, which are built from the word lists of wordfreq."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from seqssvae.config import DataConfig
from seqssvae.data.files import read_table
from seqssvae.data.table import Table
from seqssvae.errors import DataError, UserError
from seqssvae.runs.writing import write_atomically

LANGUAGES = ("cs", "de", "en", "es", "fi", "fr", "it", "nl", "pl", "pt", "sv", "tr")
"""The labels of the data set: ISO 639-1 codes of languages in Latin script."""
WORDS_PER_LANGUAGE = 2500
FREQUENCY_RATIO = 5.0
"""How many times more frequent a word must be in its language than in each of the others."""


def load_languages() -> Table:
    """Return 30,000 words labelled with their language; see `build_languages`."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "languages.tsv"
        build_languages(path)
        return read_table(path, DataConfig())


def build_languages(path: str | Path) -> None:
    """Write 2,500 words of each of 12 languages to a file: column 1 a word, column 2 its language.

    A word is alphabetic and at least five times more frequent in its language than in each of the others; of those, the
    most frequent ones are taken. The same version of wordfreq gives the same file. This takes some ten seconds.

    Args:
        path: The TSV file to write, in a directory that exists. It is written whole or not at all.

    Raises:
        UserError: If wordfreq is not installed; the error names the extra to install.
        DataError: If the file cannot be written.
    """
    frequencies = _frequencies()
    lines = [
        f"{word}\t{language}\n"
        for language in LANGUAGES
        for word in characteristic_words(frequencies, language, WORDS_PER_LANGUAGE)
    ]
    try:
        write_atomically(Path(path), (line.encode() for line in lines))
    except OSError as error:
        raise DataError(
            f"{path}: the file cannot be written ({error.strerror}); give a path in a directory that exists."
        ) from error


def characteristic_words(frequencies: Mapping[str, Mapping[str, float]], language: str, count: int) -> list[str]:
    """Return the most frequent alphabetic words of a language that are at least five times rarer in each other one.

    Args:
        frequencies: For each language, the share of each word in its texts.
        language: The language.
        count: Number of words.

    Raises:
        DataError: If there are fewer words.
    """
    others = [shares for name, shares in frequencies.items() if name != language]
    words: list[str] = []
    for word, frequency in sorted(frequencies[language].items(), key=lambda item: (-item[1], item[0])):
        if word.isalpha() and all(frequency >= FREQUENCY_RATIO * shares.get(word, 0.0) for shares in others):
            words.append(word)
            if len(words) == count:
                return words
    raise DataError(
        f"The word list of {language!r} has {len(words)} characteristic words, not {count}; update wordfreq."
    )


def _frequencies() -> dict[str, Mapping[str, float]]:
    try:
        from wordfreq import get_frequency_dict
    except ModuleNotFoundError as error:
        raise UserError(
            "The languages set is made from wordfreq, which is not installed: pip install 'seqssvae[demo]'."
        ) from error
    return {language: get_frequency_dict(language, wordlist="best") for language in LANGUAGES}
