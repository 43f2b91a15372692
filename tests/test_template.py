"""`seqssvae config`: what is printed says the same as the recipe, names every field, and is read by `fit --config`."""

import pytest
import yaml
from commands import assert_one_error

from seqssvae.cli.main import main
from seqssvae.config import Config
from seqssvae.config.fields import field_paths
from seqssvae.config.settings import from_dict, read_yaml
from seqssvae.config.template import template
from seqssvae.recipes.named import RECIPES, with_recipe


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_is_the_recipe_whichever_way_it_is_read(recipe, tmp_path, capsys):
    assert main(["config", "--recipe", recipe]) == 0
    path, expected = tmp_path / "my.yaml", from_dict(with_recipe(recipe, {}))
    path.write_text(capsys.readouterr().out)
    assert from_dict(with_recipe(recipe, read_yaml(path))) == from_dict(read_yaml(path)) == expected


def test_every_field_has_a_comment_and_a_place():
    lines, nested = template({}).splitlines(), yaml.safe_load(template({}))
    for path in field_paths():
        value = nested
        for name in path.split("."):
            value = value[name]
        name = path.rpartition(".")[2]
        places = [at for at, line in enumerate(lines) if line.strip().startswith(f"{name}:")]
        assert places
        assert all(lines[at - 1].strip().startswith("# ") for at in places)


def test_any_text_and_list_can_be_read_again():
    given = {"data": {"separator": "# ", "labels": ["a: b", "{c}", "yes", "1"], "train": "ä, b"}}
    assert from_dict(yaml.safe_load(template(given))) == from_dict(given) != Config()


def test_fit_reads_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(template({"data": {"train": "rows.tsv"}}))
    assert main(["fit", "--config", "my.yaml", "--output", "run"]) == 2
    assert_one_error(capsys, "rows.tsv")
