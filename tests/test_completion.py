"""`seqssvae completion bash`, in a bash: commands, options of each, values that are one of a few, and files."""

import shutil
import subprocess

import pytest
from commands import assert_one_error

from seqssvae.cli.arguments import COMMANDS, command_actions, expected_option_value
from seqssvae.cli.main import main

pytest.importorskip("shtab")
ASK = """
source ./script
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_shtab_seqssvae
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """A directory with the script, and a file and a directory to complete."""
    place = tmp_path_factory.mktemp("completion")
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("builtins.print", lambda text: printed.append(text))
        assert main(["completion", "bash"]) == 0
    (place / "script").write_text(printed[0])
    (place / "rows.tsv").touch()
    (place / "run").mkdir()
    return place


def completed(place, *words):
    """What bash offers for the last of these words."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    command = ["bash", "-c", ASK, "bash", "seqssvae", *words]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return {word.strip() for word in done.stdout.splitlines()} - {""}


def test_commands_and_their_options(script):
    assert completed(script, "") >= set(COMMANDS)
    assert completed(script, "di") == {"diagnose"}
    for command in ("generate", "fit"):
        options = {option for action in command_actions(command) for option in action.option_strings}
        assert completed(script, command, "--") >= {option for option in options if option.startswith("--")}
    assert completed(script, "generate", "--allow") == {"--allow-unknown"}
    assert "--model" not in completed(script, "fit", "--model")


def test_values(script):
    assert completed(script, "generate", "run", "--method", "") == {"sample", "greedy", "beam"}
    assert completed(script, "fit", "--model.decoder.conditioning", "e") == {"every_step"}
    assert completed(script, "fit", "--data.header", "") == {"true", "false"}
    assert completed(script, "fit", "--data.train", "ro") == {"rows.tsv"}
    assert completed(script, "evaluate", "r") == {"run"}


def test_values_are_those_that_the_command_takes():
    for command, names in (("predict", "classifier, generative, combined"), ("generate", "sample, greedy, beam")):
        assert expected_option_value(command, "method") == f"one of {names}"


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "transduce" in capsys.readouterr().out


def test_mistakes(capsys, monkeypatch):
    assert main(["completion", "fish"]) == 2
    assert_one_error(capsys, "SHELL must be one of bash, zsh, tcsh, not 'fish'.")
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert_one_error(capsys, "Completion needs shtab, which is not installed: pip install 'seqssvae[completion]'.")
