"""The data of the demonstration: peptides, which are shipped, and words of twelve languages, which are built."""

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from seqssvae.config import DataConfig
from seqssvae.data.tsv import Row, read_rows
from seqssvae.errors import DataError, UserError

LANGUAGES = ("cs", "de", "en", "es", "fi", "fr", "it", "nl", "pl", "pt", "sv", "tr")
"""The labels of the languages set, ISO 639-1 codes of languages in Latin script."""
WORDS_PER_LANGUAGE = 2500
FREQUENCY_RATIO = 5.0
"""How many times more frequent a word must be in its language than in each of the others."""


def peptides_path() -> Path:
    """The shipped TSV file: column 1 a peptide, column 2 `AMP` (antimicrobial) or `UniProt` (drawn at random)."""
    return Path(str(files("seqssvae.datasets") / "peptides.tsv"))


def load_peptides() -> list[Row]:
    """The 4,620 labelled peptides; the README beside the file says where they are from."""
    return read_rows(peptides_path(), DataConfig())


def build_languages(path: str | Path) -> None:
    """Write the languages set, 2,500 words of each of 12 languages: column 1 a word, column 2 its language.

    A word is alphabetic and at least five times more frequent in its language than in each of the others; of those, the
    most frequent ones are taken. The same version of wordfreq gives the same file. Takes some ten seconds.

    Args:
        path: The TSV file to write, in a directory that exists. It is written whole or not at all.

    Raises:
        UserError: If wordfreq is not installed; the message names the extra.
        DataError: If the file cannot be written.
    """
    frequencies = _frequencies()
    lines = [
        f"{word}\t{language}\n"
        for language in LANGUAGES
        for word in typical_words(frequencies, language, WORDS_PER_LANGUAGE)
    ]
    try:
        _write_whole(Path(path), "".join(lines))
    except OSError as error:
        raise DataError(
            f"{path}: the file cannot be written ({error.strerror}); give a path in a directory that exists."
        ) from error


def typical_words(frequencies: Mapping[str, Mapping[str, float]], language: str, count: int) -> list[str]:
    """The most frequent alphabetic words of a language that are at least five times rarer in each other language.

    Args:
        frequencies: For each language, the share of each word in its texts.
        language: Which language.
        count: Number of words.

    Raises:
        DataError: If there are fewer.
    """
    others = [words for name, words in frequencies.items() if name != language]
    found = []
    for word, frequency in sorted(frequencies[language].items(), key=lambda item: (-item[1], item[0])):
        if word.isalpha() and all(frequency >= FREQUENCY_RATIO * words.get(word, 0.0) for words in others):
            found.append(word)
            if len(found) == count:
                return found
    raise DataError(f"The word list of {language!r} has {len(found)} typical words, not {count}; update wordfreq.")


def _frequencies() -> dict[str, Mapping[str, float]]:
    try:
        from wordfreq import get_frequency_dict
    except ModuleNotFoundError as error:
        raise UserError(
            "The languages set is made from wordfreq, which is not installed: pip install 'seqssvae[demo]'."
        ) from error
    return {language: get_frequency_dict(language, wordlist="best") for language in LANGUAGES}


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
