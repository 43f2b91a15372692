"""Labels that look alike, or like a missing one, and header lines that are read as rows, are named in a warning."""

import unicodedata
import warnings

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from toy import NAMES, TEXTS, toy_config
from toy import make_estimator as make

from seqssvae.config import DataConfig
from seqssvae.data.corpus import encode_table
from seqssvae.data.files import read_table
from seqssvae.data.lookalikes import alike, plain_form
from seqssvae.data.prepare import prepare_table
from seqssvae.data.schema import build_schema
from seqssvae.data.table import Table
from seqssvae.errors import DataError

WAYS = {
    "blank in front": lambda label: " " + label,
    "no-break space behind": lambda label: label + "\u00a0",
    "zero width space": lambda label: label + "\u200b",
    "capitals": str.upper,
    "taken apart": lambda label: unicodedata.normalize("NFD", label),
    "wide letters": lambda label: "".join(chr(ord(c) + 0xFEE0) if "a" <= c <= "z" else c for c in label),
}


@given(st.text("abcéöñ", min_size=1, max_size=5), st.sampled_from(sorted(WAYS)), st.sampled_from(sorted(WAYS)))
def test_labels_that_differ_only_in_how_they_are_written_are_named(label, first, second):
    other = WAYS[second](WAYS[first](label))
    assume(other != label)
    table = Table.from_rows(["ab", "cd", "ab", "cd"], [label, other, "zz", "zz"])
    assert alike([label, other, "zz"]) == [sorted([label, other])]
    with pytest.warns(UserWarning, match="differ only in blanks, case or Unicode normalisation") as warned:
        build_schema(table, DataConfig())
    assert all(f"{name!r} (1 rows)" in str(warned[0].message) for name in (label, other))


@given(st.sets(st.text("abc", min_size=1, max_size=3), min_size=2, max_size=6))
def test_labels_of_other_letters_are_not_alike(labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_schema(Table.from_rows(["ab"] * len(labels), sorted(labels)), DataConfig())


@pytest.mark.parametrize("name", ["nan", "NaN", "NA", "N/A", "None", "null", "<NA>", "NaT", " ", "?", " na "])
def test_labels_that_look_like_a_missing_one_are_named(name):
    table = Table.from_rows(["ab", "cd", "ab"], ["left", "right", name])
    with pytest.warns(UserWarning, match=f"{name!r} \\(1 rows\\) is a class like any other".replace("?", r"\?")):
        build_schema(table, DataConfig())


@pytest.mark.usefixtures("fake_twins")
def test_labels_in_memory_are_looked_at_too():
    with pytest.warns(UserWarning, match=r"X: 'nan' \(20 rows\) is a class like any other"):
        make(epochs=1).fit(TEXTS, ["nan"] * 20 + NAMES[20:])


def test_a_label_that_is_written_otherwise_than_in_training_is_explained():
    schema = build_schema(Table.from_rows(["ab", "cd"], ["left", "right"]), DataConfig())
    with pytest.raises(
        DataError, match=r"the label 'Left ' was never seen in training \('left' is written otherwise\)"
    ):
        encode_table(Table.from_rows(["ab"], ["Left "]), schema, DataConfig())


HEADERS = [
    ("sequence\tlabel", {}),
    ("Text\tClass", {}),
    ("protein_sequence\tis_toxic", {}),
    ("abra\tCategory", {}),
    ("form\tclassification", {}),
    ("word", {"label_column": 0}),
    ("target\tform\tsource", {"label_column": 1, "sequence_column": 2, "source_column": 3}),
]


@pytest.mark.parametrize(("header", "columns"), HEADERS)
def test_a_header_line_that_is_read_as_a_row_is_named(tmp_path, header, columns):
    row = {1: "ab", 2: "ab\t{}", 3: "{}\tab\tba"}[header.count("\t") + 1]
    lines = [header, *(row.format(label) for label in ("left", "right") * 2)]
    path = tmp_path / "rows.tsv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.warns(
        UserWarning, match=r"rows\.tsv:1: the first line, with '.*', is read as a row.*data\.header: true"
    ):
        read_table(path, DataConfig(**columns))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_table(path, DataConfig(**columns, header=True))) == 4
        path.write_text("\n".join(lines[1:]))
        read_table(path, DataConfig(**columns))


def test_few_labels_and_a_first_one_of_its_own_are_no_header(tmp_path):
    path = tmp_path / "rows.tsv"
    for content in (
        "ab\tleft\ncd\tright\n",
        "ab\tleft\ncd\t\ncd\tright\ncd\tup\n",
        "label\tleft\nab\tleft\ncd\tright\n",
    ):
        path.write_text(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_table(path, DataConfig())


def test_it_is_said_when_no_row_can_be_held_out():
    groups = ["one"] * 60
    with pytest.warns(UserWarning, match="no row is held out for validation"):
        prepared = prepare_table(Table.from_rows(TEXTS, NAMES, groups), toy_config())
    assert len(prepared.validation) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare_table(Table.from_rows(TEXTS, NAMES, [str(index) for index in range(60)]), toy_config())


def test_the_plain_form_keeps_what_sets_labels_apart():
    assert plain_form("Straße 1\u00ad") == "strasse1"
    assert len({plain_form(label) for label in ("a1", "a-1", "a+1", "ä1", "\u04301")}) == 5
