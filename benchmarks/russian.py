"""Russian nouns as rows: lemma, form, and the form's case and number, from the dictionary of OpenCorpora (CC BY-SA).

It comes with the packages `pymorphy3` and `pymorphy3-dicts-ru`; nothing of it is kept with this project. The nouns are
the most frequent ones by `wordfreq`; lemmas do not straddle the files.
"""

from pathlib import Path

import numpy as np

CASES = ("nomn", "gent", "datv", "accs", "ablt", "loct")
NUMBERS = ("sing", "plur")
LABELS = tuple(f"{case};{number}" for case in CASES for number in NUMBERS)
EXCLUDED = {"Abbr", "Name", "Surn", "Patr", "Geox", "Orgn", "Trad", "Fixd", "Infr", "Erro", "Arch", "Init", "Subx"}
"""Of names, abbreviations, what is not declined, what is no standard form."""
LEMMAS = {"train": 1600, "dev": 200, "test": 400}
FORMS = 2
"""Forms taken of each lemma, of different labels."""


def paradigms(count: int) -> list[tuple[str, dict[str, str]]]:
    """The most frequent nouns: lemma, and form by label."""
    from pymorphy3 import MorphAnalyzer
    from wordfreq import top_n_list

    analyzer, nouns = MorphAnalyzer(), []
    seen: set[str] = set()
    for word in top_n_list("ru", 60_000):
        for parse in analyzer.parse(word):
            grammemes, lemma = set(parse.tag.grammemes), parse.normal_form
            if parse.tag.POS != "NOUN" or not parse.is_known or grammemes & EXCLUDED or lemma in seen:
                continue
            seen.add(lemma)
            forms: dict[str, str] = {}
            for form in parse.lexeme:
                label = f"{form.tag.case};{form.tag.number}"
                if label in LABELS and not set(form.tag.grammemes) & {"V-oy", "V-ey", "V-ie", "V-ej"}:
                    forms.setdefault(label, form.word)
            if lemma.isalpha() and 3 <= len(lemma) <= 12 and set(forms) == set(LABELS):
                nouns.append((lemma, forms))
        if len(nouns) >= count:
            return nouns[:count]
    raise ValueError(f"there are {len(nouns)} nouns, not {count}")


def write(folder: Path, seed: int = 0) -> dict[str, list[tuple[str, str, str]]]:
    """Write train, dev and test as TSV (lemma, form, label), unless they are there; the rows of each."""
    rows: dict[str, list[tuple[str, str, str]]] = {}
    if not all((folder / f"{name}.tsv").exists() for name in LEMMAS):
        folder.mkdir(parents=True, exist_ok=True)
        nouns, generator = paradigms(sum(LEMMAS.values())), np.random.default_rng([seed, 0x2005])
        order, start = generator.permutation(len(nouns)), 0
        for name, size in LEMMAS.items():
            lines = []
            for place in order[start : start + size]:
                lemma, forms = nouns[place]
                for label in generator.choice(LABELS, FORMS, replace=False):
                    lines.append(f"{lemma}\t{forms[str(label)]}\t{label}\n")
            (folder / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")
            start += size
    for name in LEMMAS:
        lines = (folder / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
        rows[name] = [(lemma, form, label) for lemma, form, label in (line.split("\t") for line in lines)]
    return rows
