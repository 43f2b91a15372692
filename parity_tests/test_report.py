"""The report and the diagnosis of one run by either twin: the same figures and the same sentences."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity_tests.conftest import Check
from parity_tests.findings import compare
from seqssvae import SequenceSSVAE
from seqssvae.config.settings import from_dict
from seqssvae.data.corpus import encode_table
from seqssvae.data.in_memory import make_table
from seqssvae.diagnosis.diagnose import Diagnosed
from seqssvae.report.collect import RunFacts, collect
from seqssvae.runs.files import read_metrics
from seqssvae.runs.run import open_run

SETTINGS = {
    "model": {
        "latent_size": 2,
        "encoder": {"embedding_size": 4, "hidden_size": 8},
        "decoder": {"embedding_size": 4, "hidden_size": 8},
    },
    "optimizer": {"learning_rate": 0.03},
    "training": {"max_steps": 30, "batch_size": 16, "labelled_batch_size": 8, "buckets": 1},
}


def _rows(count: int, seed: int) -> tuple[list[str], list[str]]:
    generator = np.random.default_rng(seed)
    labels = [("left", "right")[index % 2] for index in range(count)]
    shares = {"left": [0.5, 0.3, 0.1, 0.1], "right": [0.1, 0.1, 0.3, 0.5]}
    return ["".join(generator.choice(list("abcd"), size=5, p=shares[label])) for label in labels], labels


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that the PyTorch twin trained."""
    texts, labels = _rows(60, 0)
    model = SequenceSSVAE(backend="torch", recipe="ssvae", config=from_dict(SETTINGS))
    path = tmp_path_factory.mktemp("report") / "run"
    model.fit(texts, [label if index < 30 else None for index, label in enumerate(labels)]).save(path)
    return path


def _facts(path: Path, backend: str) -> RunFacts:
    texts, labels = _rows(50, 1)
    opened = open_run(path, backend)
    corpus = encode_table(make_table(texts, opened.config.data, labels), opened.schema, opened.config.data)
    known = opened.ensemble, opened.baselines, opened.trained_on, read_metrics(path), opened.step
    return collect("run", Diagnosed(opened.backend, opened.config, opened.schema, *known), "torch", corpus, texts)


def _numbers(value: Any, name: str = "") -> dict[str, np.ndarray]:
    """All numbers of a nested value, by where they stand."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, Sequence) and not isinstance(value, str):
        parts = [(str(place), entry) for place, entry in enumerate(value)]
    else:
        number = isinstance(value, (int, float, np.ndarray)) and not isinstance(value, bool)
        return {name: np.asarray(value, float)} if number else {}
    return {key: array for part, entry in parts for key, array in _numbers(entry, f"{name}.{part}").items()}


def test_both_twins_report_the_same(run: Path, check: Check) -> None:
    first, second = (_facts(run, name) for name in ("torch", "jax"))
    assert first.findings is not None
    assert second.findings is not None
    expected, numbers = (_numbers(facts._replace(samples=[], backend="")) for facts in (first, second))
    known = {name for name, value in expected.items() if np.isfinite(value).all()}
    assert known == {name for name, value in numbers.items() if np.isfinite(value).all()}
    assert len(known) > 80
    pair = ({name: side[name] for name in sorted(known)} for side in (expected, numbers))
    check(compare("report, float32", "torch and jax", *pair, 1e-4))
    one, other = ([finding.name for finding in side.diagnosis.findings] for side in (first.findings, second.findings))
    assert one == other
    assert first.findings.held_out is not None
    assert second.findings.held_out is not None
    wrong, again = ([row.text for row in side.wrong] for side in (first.findings.held_out, second.findings.held_out))
    assert wrong == again


def test_what_is_generated_is_of_the_labels(run: Path) -> None:
    for name in ("torch", "jax"):
        samples = _facts(run, name).samples
        assert [sample.label for sample in samples] == ["left"] * 4 + ["right"] * 4
        assert all(set(sample.text) <= set("abcd") for sample in samples)
