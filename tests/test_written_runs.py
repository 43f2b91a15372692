"""Programs of docs/programs.md run as they stand, and what they leave predicts what the program itself says."""

import re
from pathlib import Path

import numpy as np
import pytest

from seqssvae.config import Config, ModelConfig
from seqssvae.errors import ConfigurationError, RunError
from seqssvae.parameters import initial_weights
from seqssvae.runs.trained import write_run

PAGE = (Path(__file__).parents[1] / "docs" / "programs.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SMALL = """ModelConfig(
    latent_size=2,
    encoder=EncoderConfig(embedding_size=3, hidden_size=2, kind="convolution", widths=(1,), channels=2),
    decoder=DecoderConfig(embedding_size=3, hidden_size=2, context=1),
)"""


@pytest.mark.parametrize("place", [0, 1], ids=["pyro", "numpyro"])
def test_the_programs_of_the_page_run(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = BLOCKS[place].replace("ModelConfig()", SMALL)  # which is quick
    program = program.replace("Config, ModelConfig", "Config, DecoderConfig, EncoderConfig, ModelConfig")
    names: dict = {}
    exec(compile(program, "docs/programs.md", "exec"), names)
    exec(compile(BLOCKS[2].replace("max_length=20", "max_length=3"), "docs/programs.md", "exec"), names)
    predicted = names["model"].predict_proba(["aba", "c"])
    np.testing.assert_allclose(predicted, np.asarray(names["q_y"]), rtol=1e-5)
    assert names["model"].classes_.tolist() == ["left", "right"]


def test_weights_of_another_model_are_refused(tmp_path):
    weights = initial_weights(ModelConfig(), 7, 2, seed=0)
    given = Config(), ["a", "b"], ["left", "right"], weights
    with pytest.raises(ConfigurationError, match=r"The weights do not go with .*: the weight .* has shape"):
        write_run(tmp_path / "run", *given, backend="torch")
    assert not (tmp_path / "run").exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(RunError, match="exists already"):
        write_run(tmp_path / "taken", Config(), ["a", "b", "c"], ["left", "right"], weights, backend="torch")
