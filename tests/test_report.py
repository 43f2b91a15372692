"""The page of a report, in a real browser, and the pictures in notebooks."""

import re
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, open_page
from commands import FIT
from toy import NAMES, OTHER_NAMES, OTHER_TEXTS, TEXTS, make_estimator, write_toy

from seqssvae.cli.main import main
from seqssvae.diagnosis.latents import LatentUse
from seqssvae.recipes.calibration import reliability
from seqssvae.report import plots

IN_PAGE = {
    "figures": "[...document.querySelectorAll('figure svg')].map(s => s.querySelectorAll('path, use, image').length)",
    "sizes": "[...document.querySelectorAll('figure svg')].map(s => s.getBoundingClientRect().width)",
    "named": "[...document.querySelectorAll('svg')].every(s => s.getAttribute('role') == 'img' && "
    "s.getAttribute('aria-labelledby').split(' ').every(id => document.getElementById(id).textContent))",
    "repeated": "(ids => ids.filter((id, n) => ids.indexOf(id) != n))"
    "([...document.querySelectorAll('[id]')].map(e => e.id))",
    "broken": "[...document.querySelectorAll('a[href^=\"#\"]')].filter(a => !document.querySelector(a.hash)).length",
    "missing": "[...document.querySelectorAll('use')].filter(u => "
    "!document.getElementById(u.getAttributeNS('http://www.w3.org/1999/xlink', 'href').slice(1))).length",
    "headings": "[...document.querySelectorAll('h1, h2')].map(e => e.textContent)",
    "overflow": "document.documentElement.scrollWidth - document.documentElement.clientWidth",
    "ink": "getComputedStyle(document.body).color",
    "paper": "getComputedStyle(document.body).backgroundColor",
    "text": "document.body.innerText",
    "tables": "[...document.querySelectorAll('table')].every(t => t.caption && t.querySelector('th[scope=col]'))",
}
browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium, or playwright, is not installed")


@pytest.fixture
def page(workplace):
    """The page of two runs of the toy problem, one of them with other settings, and the rows they are looked at by."""
    write_toy(Path("other.tsv"), count=60, labelled=60, seed=1)
    assert main([*FIT, "--quiet"]) == 0
    other = [*FIT[: FIT.index("--output") + 1], "second", *FIT[FIT.index("--output") + 2 :]]
    assert main([*other, "--quiet", "--training.epochs=3"]) == 0
    assert main(["report", "run", "second", "--data", "other.tsv", "--output", "page.html", "--no-certificate"]) == 0
    return Path("page.html")


@browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["wide and light", "a telephone, dark"])
def test_the_page_in_a_browser(page, width, dark):
    opened = open_page(page, IN_PAGE, width, dark)
    assert opened.console == []
    assert opened.requests == []
    facts = opened.facts
    assert len(facts["figures"]) > 10
    assert min(facts["figures"]) > 5  # nothing but axes has fewer
    assert min(facts["sizes"]) > 100
    assert facts["named"]
    assert facts["tables"]
    assert facts["repeated"] == []
    assert facts["broken"] == facts["missing"] == 0
    assert facts["overflow"] <= 0
    assert facts["headings"][0] == "run and second"
    assert {"Diagnosis", "Training", "Labels", "Embedding", "Settings"} <= set(facts["headings"])
    light = [sum(map(int, re.findall(r"\d+", facts[name])[:3])) for name in ("ink", "paper")]
    assert (light[0] > light[1]) == dark
    assert "training.epochs" in facts["text"]
    assert "left" in facts["text"]


def test_what_stands_in_files_is_no_code(workplace):
    """A label and a row that are markup are shown as text."""
    rows = [
        f"{text}\t{'<script>alert(1)</script>' if label == 'left' else label}"
        for text, label in zip(TEXTS, NAMES, strict=True)
    ]
    Path("train.tsv").write_text("\n".join(rows) + "\n")
    assert main([*FIT, "--quiet"]) == 0
    assert main(["report", "run", "--data", "train.tsv", "--output", "page.html", "--no-certificate"]) == 0
    assert "<script" not in Path("page.html").read_text("utf-8")
    assert "&lt;script&gt;" in Path("page.html").read_text("utf-8")


def test_names_are_shown_as_they_are(workplace):
    """Of labels, $ begins no formula and _ hides nothing."""
    names = {"left": "$\\foo{$", "right": "_right"}
    rows = (f"{text}\t{names[label]}\n" for text, label in zip(TEXTS, NAMES, strict=True))
    Path("train.tsv").write_text("".join(rows))
    assert main([*FIT, "--quiet"]) == 0
    write_rows = (f"{text}\t{names[label]}\n" for text, label in zip(OTHER_TEXTS, OTHER_NAMES, strict=True))
    Path("other.tsv").write_text("".join(write_rows))
    assert main(["report", "run", "--data", "other.tsv", "--output", "page.html", "--no-certificate"]) == 0
    pictures = "".join(re.findall(r"<svg.*?</svg>", Path("page.html").read_text("utf-8"), re.DOTALL))
    assert pictures.count("$\\foo{$") >= 2
    assert pictures.count("_right") >= 2


def test_runs_of_one_name_are_told_apart_and_each_is_read_first(workplace, capsys):
    for folder in ("one", "two"):
        assert main([*FIT[: FIT.index("run")], f"{folder}/run", *FIT[FIT.index("run") + 1 :], "--quiet"]) == 0
    assert main(["report", "one/run", "two/run", "--output", "page.html", "--no-certificate"]) == 0
    assert "<h1>one/run and two/run</h1>" in Path("page.html").read_text("utf-8")
    assert main(["report", "one/run", "gone", "--output", "other.html", "--no-certificate"]) == 2
    assert "gone" in capsys.readouterr().err
    assert not Path("other.html").exists()


def test_a_page_that_is_there_is_kept(page, capsys):
    before = page.read_bytes()
    assert main(["report", "run", "--output", str(page), "--no-certificate"]) == 2
    assert page.read_bytes() == before
    assert "page.html" in capsys.readouterr().err


def test_a_classifier_has_a_page_too(workplace):
    assert main([*FIT, "--quiet", "--objective.name=classifier"]) == 0
    write_toy(Path("other.tsv"), count=30, labelled=30, seed=1)
    assert main(["report", "run", "--data", "other.tsv", "--output", "page.html", "--no-certificate"]) == 0
    assert "features that q(y|x) reads" in Path("page.html").read_text("utf-8")


def test_without_rows_there_are_settings_and_curves(workplace):
    assert main([*FIT, "--quiet"]) == 0
    assert main(["report", "run", "--output", "page.html", "--no-certificate"]) == 0
    text = Path("page.html").read_text("utf-8")
    assert "No rows were given" in text
    assert text.count("<svg") >= 5


@pytest.fixture(scope="module")
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    return pytest.importorskip("matplotlib.pyplot")


@pytest.fixture
def model(fake_twins, pyplot):
    yield make_estimator().fit(TEXTS, [name if index < 40 else None for index, name in enumerate(NAMES)])
    pyplot.close("all")


def test_pictures_hold_what_they_are_of(model):
    predicted = model.predict(OTHER_TEXTS)
    axes = model.plot_confusion(OTHER_TEXTS, OTHER_NAMES)
    counts = [
        [np.sum((np.array(OTHER_NAMES) == row) & (predicted == column)) for column in model.classes_]
        for row in model.classes_
    ]
    assert [text.get_text() for text in axes.texts] == [str(count) for row in counts for count in row]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == model.classes_.tolist()

    probabilities = model.predict_proba(OTHER_TEXTS)
    y = np.array([model.classes_.tolist().index(name) for name in OTHER_NAMES])
    curve = reliability(np.log(probabilities), y)
    axes = model.plot_calibration(OTHER_TEXTS, OTHER_NAMES)
    points = axes.lines[1].get_xydata()
    np.testing.assert_allclose(points, np.stack([curve.confidence, curve.accuracy], 1)[curve.rows > 0], rtol=1e-5)

    axes = model.plot_embedding(OTHER_TEXTS, [None, *OTHER_NAMES[1:]])
    places = np.concatenate([part.get_offsets() for part in axes.collections])
    embedding = model.transform(OTHER_TEXTS)
    distances = np.linalg.norm(embedding - embedding[0], axis=1)  # two dimensions: nothing is lost
    np.testing.assert_allclose(np.linalg.norm(places - places[0], axis=1), distances[_order(model)], atol=1e-5)

    by_features = model.plot_embedding(OTHER_TEXTS, features=True)
    assert len(by_features.collections[0].get_offsets()) == len(OTHER_TEXTS)

    grid = model.plot_history()
    by_title = {axes.get_title(): axes for axes in grid.flat}
    steps, values = by_title["Accuracy"].lines[0].get_data()
    assert list(steps) == [record.step for record in model.history_]
    assert list(values) == [record.validation.accuracy for record in model.history_]


def test_units_are_shown_in_order_and_active_ones_apart(pyplot):
    latent = LatentUse(np.array([0.1, 2.0, 0.0]), np.array([0.5, 0.6, 0.0]), 0.3, 10)
    axes = plots.plot_units(latent)
    assert [[(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in group] for group in axes.containers] == [
        [(1, 2.0), (2, 0.1)],
        [(3, 0.0)],
    ]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["active", "not active"]
    pyplot.close("all")


def _order(model):
    """The order of rows in the map: without a label first, then by label, the most frequent first."""
    names = np.array(["", *OTHER_NAMES[1:]])
    frequent = sorted(model.classes_.tolist(), key=lambda name: -np.sum(names == name))
    return np.concatenate([[0], *(np.flatnonzero(names == name) for name in frequent)])


def test_a_notebook_shows_the_curves(model):
    shown = model._repr_html_()
    svg = shown[shown.index("<svg") : shown.index("</svg>") + 6]
    root = xml.etree.ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert "labels: left, right" in shown
    assert "<svg" not in make_estimator()._repr_html_()


def test_principal_components_are_those_of_the_covariance():
    rows = np.random.default_rng(0).normal(size=(30, 4)) * [3.0, 2.0, 1.0, 0.1]
    places, kind, _ = plots._principal(rows)
    values = np.sort(np.linalg.eigvalsh(np.cov(rows.T, bias=True)))[::-1]
    np.testing.assert_allclose(places.var(axis=0), values[:2])
    assert abs(np.mean(places[:, 0] * places[:, 1])) < 1e-12
    mirrored = plots._principal(-rows)[0]
    np.testing.assert_allclose(np.abs(mirrored), np.abs(places))
    assert kind == "principal components"
