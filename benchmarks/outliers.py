"""How well log p(x) tells rows of another kind: area under the ROC curve, beside what needs no model of ours.

    python -m benchmarks.outliers [--backend jax] [--seeds 3] [--recipe topics]

A model is trained on rows with 50 labels of each class and all others without. Test rows of the same kind are to have a
higher score than rows of another kind: words of a thirteenth language, and peptides whose symbols were shuffled, which
have the same composition and length. Beside log p(x) of the model, per row and per symbol, stand that of a bigram model
and the probability of the most probable label.
"""

import argparse
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from seqssvae import SequenceSSVAE
from seqssvae.datasets import load_dataset
from seqssvae.datasets.languages import FREQUENCY_RATIO, LANGUAGES

LABELS, TEST_ROWS, OTHER_LANGUAGE = 50, 1000, "hu"
TRAINING_ROWS = 10_000
SCORES = ("log p(x) a symbol", "log p(x) a row", "bigrams a symbol", "highest p(y\\|x)")


def another_language(count: int) -> list[str]:
    """The most frequent words of Hungarian that are five times rarer in each of the twelve languages."""
    from wordfreq import get_frequency_dict

    others = [get_frequency_dict(language, wordlist="best") for language in LANGUAGES]
    own = sorted(get_frequency_dict(OTHER_LANGUAGE, wordlist="best").items(), key=lambda item: (-item[1], item[0]))
    rare = (w for w, f in own if w.isalpha() and all(f >= FREQUENCY_RATIO * shares.get(w, 0.0) for shares in others))
    return [word for word, _ in zip(rare, range(count), strict=False)]


def shuffled(texts: list[str], seed: int) -> list[str]:
    """The same symbols of each text in another order."""
    generator = np.random.default_rng(seed)
    return ["".join(generator.permutation(list(text))) for text in texts]


def run(dataset: str, backend: str, recipe: str, seed: int) -> dict[str, float]:
    """The area under the curve by each score."""
    table = load_dataset(dataset)
    texts, labels = list(table.sequences.joined("")), list(table.labels)
    order = np.random.default_rng(seed).permutation(len(texts))
    test, rest = order[:TEST_ROWS], order[TEST_ROWS : TEST_ROWS + TRAINING_ROWS]
    seen: dict[Any, int] = {}
    given = []
    for row in rest:
        seen[labels[row]] = seen.get(labels[row], 0) + 1
        given.append(labels[row] if seen[labels[row]] <= LABELS else None)
    model = SequenceSSVAE(backend=backend, recipe=recipe, random_state=seed).fit([texts[row] for row in rest], given)
    inside = [texts[row] for row in test]
    outside = another_language(TEST_ROWS) if dataset == "languages" else shuffled(inside, seed)
    both, is_inside = inside + outside, np.repeat([1, 0], [len(inside), len(outside)])
    corpus = model.fitted_.encode(both, None)
    per_row = model.score_samples(both)
    assert model.fitted_.baselines is not None
    bigram = model.fitted_.baselines.bigram.log_likelihood(corpus.sequences.loaded())[:, 0]
    scores = per_row / corpus.lengths, per_row, bigram / corpus.lengths, model.predict_proba(both).max(axis=1)
    return {name: float(roc_auc_score(is_inside, score)) for name, score in zip(SCORES, scores, strict=True)}


def main() -> None:
    """Print a line for each data set, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--recipe", default="topics")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--datasets", nargs="+", default=["languages", "peptides"])
    arguments = parser.parse_args()
    print(f"| rows of another kind | {' | '.join(SCORES)} |\n|---|{'---|' * len(SCORES)}")
    for dataset in arguments.datasets:
        runs = [run(dataset, arguments.backend, arguments.recipe, seed) for seed in range(arguments.seeds)]
        other = "words of Hungarian, to words of twelve languages" if dataset == "languages" else "shuffled peptides"
        cells = (np.array([one[name] for one in runs]) for name in SCORES)
        print(f"| {other} | {' | '.join(f'{cell.mean():.3f} ± {cell.std():.3f}' for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
