"""Shared fixtures: the problems that both twins and the oracle solve.

They are a pairwise cover of the options, and lie as safetensors files in `parity_tests/fixtures`, each with a JSON
header; `python -m parity_tests.fixtures` writes them anew.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from parity_tests.cover import cover
from parity_tests.problems import Arrays, Options, Problem, Step, make_problem
from seqssvae.backend import Batch, Dimensions
from seqssvae.config.settings import from_dict, to_dict, upgraded

__all__ = [
    "Options",
    "Problem",
    "Step",
    "generate_problems",
    "load_problem",
    "load_problems",
    "make_problem",
    "save_problem",
]

FOLDER = Path(__file__).parent / "fixtures"

FACTORS: dict[str, tuple[Any, ...]] = {
    "cell": ("gru", "lstm"),
    "encoder_layers": (1, 2),
    "decoder_layers": (1, 2),
    "bidirectional": (False, True),
    "conditioning": ("init", "every_step", "output"),
    "pooling": ("last", "mean", "max"),
    "separate": (False, True),
    "label_count": (2, 3, 4, 5),
    "prior": ("uniform", "given"),
    "beta": (1.0, 0.3),
    "dropout": (0.0, 0.3),
    "word_dropout": (0.0, 0.4),
    "kind": ("labelled", "unlabelled", "mixed"),
    "filler": (False, True),
    "shortest": (1, 2),
    "label_gradient": (1.0, 0.0, 0.3),
}
"""The values of each of the `Options` that the problems cover, pair by pair."""
JOINT = (
    ("cell", "decoder_layers", "conditioning"),
    ("cell", "encoder_layers", "bidirectional"),
    ("cell", "conditioning", "kind"),
)
"""Options of which all combinations are covered: they decide how states are laid out, and which program runs."""

SOURCE_FACTORS: dict[str, tuple[Any, ...]] = {
    "cell": ("gru", "lstm"),
    "conditioning": ("init", "every_step", "output"),
    "attention": (True, False),
    "kind": ("mixed", "unlabelled"),
    "separate": (False, True),
    "dropout": (0.0, 0.3),
    "filler": (True, False),
    "shortest": (1, 2),
    "decoder_layers": (1, 2),
    "source": (True,),
}
"""The same for rows with a source."""
SOURCE_JOINT = (("conditioning", "attention"),)

CONSISTENCY_FACTORS: dict[str, tuple[Any, ...]] = {
    "cell": ("gru", "lstm"),
    "kind": ("mixed", "unlabelled"),
    "separate": (False, True),
    "label_gradient": (1.0, 0.0),
    "dropout": (0.0, 0.3),
    "encoder_word_dropout": (0.4, 0.0),
    "source": (False, True),
    "aligned": (True, False),
    "consistency": (0.7,),
}
"""The same for an objective with the consistency term."""

FURTHER_FACTORS: dict[str, tuple[Any, ...]] = {
    "encoder": ("convolution", "both"),
    "name": ("classifier", "ssvae"),
    "kind": ("mixed", "unlabelled"),
    "separate": (False, True),
    "dropout": (0.3, 0.0),
    "source": (False, True),
    "context": (2, 0, None),
    "realigned": (True, False),
    "shifted": (True, False),
    "aligned": (True,),
    "consistency": (0.7,),
}
"""The same for further networks and objectives."""

POSTERIOR_FACTORS: dict[str, tuple[Any, ...]] = {
    "posterior": ("exact", "given"),
    "posterior_temperature": (1.0, None),
    "kind": ("mixed", "unlabelled"),
    "conditioning": ("output", "every_step"),
    "source": (False, True),
    "dropout": (0.3, 0.0),
}
"""The same for labels that are weighted by another posterior than q(y|x)."""


def generate_problems() -> list[Problem]:
    """The problems of the pairwise cover, as the files hold them."""
    problems = []
    for seed, combination in enumerate(cover(FACTORS, JOINT)):
        options = Options(**combination)
        problems.append(make_problem(options, seed, f"{seed:02d}-{options.cell}-{options.conditioning}-{options.kind}"))
    for number, combination in enumerate(cover(CONSISTENCY_FACTORS, seed=2)):
        options, seed = Options(**combination), 200 + number
        problems.append(make_problem(options, seed, f"consistency-{number}-{options.cell}-{options.kind}"))
    for number, combination in enumerate(cover(FURTHER_FACTORS, seed=3)):
        options, seed = Options(**combination), 300 + number
        problems.append(make_problem(options, seed, f"further-{number:02d}-{options.encoder}-{options.name}"))
    for number, combination in enumerate(cover(POSTERIOR_FACTORS, seed=4)):
        options, seed = Options(**combination), 400 + number
        problems.append(make_problem(options, seed, f"posterior-{number}-{options.posterior}-{options.kind}"))
    for number, combination in enumerate(cover(SOURCE_FACTORS, SOURCE_JOINT, seed=15)):
        options, seed = Options(**combination), 100 + number
        name = f"source-{number}-{options.cell}-{options.conditioning}-{options.kind}"
        problems.append(make_problem(options, seed, name))
    return problems


def problem_files(folder: Path = FOLDER) -> list[Path]:
    """The files of the problems, in order."""
    return sorted(folder.glob("*.safetensors"))


def load_problems(folder: Path = FOLDER) -> list[Problem]:
    """The problems on file, in order."""
    return [load_problem(path) for path in problem_files(folder)]


def save_problem(problem: Problem, path: Path) -> None:
    """Write a problem as one safetensors file; all that is no array is in its header, as JSON."""
    header = {
        "name": problem.name,
        "options": dataclasses.asdict(problem.options),
        "config": to_dict(problem.config),
        "vocabulary_size": problem.dimensions.vocabulary_size,
        "label_prior": problem.dimensions.label_prior,
        "source_vocabulary_size": problem.dimensions.source_vocabulary_size,
        "beta": problem.beta,
    }
    save_file(arrays_of(problem), path, metadata={"problem": json.dumps(header)})


def load_problem(path: Path) -> Problem:
    """Read a problem as `save_problem` wrote it."""
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["problem"])
    arrays = load_file(path)
    return Problem(
        name=header["name"],
        options=Options(**header["options"]),
        config=from_dict(upgraded(header["config"])),
        dimensions=Dimensions(
            header["vocabulary_size"], tuple(header["label_prior"]), header["source_vocabulary_size"]
        ),
        weights=_under("weights", arrays),
        labelled=_step_from("labelled", arrays),
        unlabelled=_step_from("unlabelled", arrays),
        beta=header["beta"],
    )


def arrays_of(problem: Problem) -> Arrays:
    """All arrays of a problem, named as in its file."""
    arrays = {f"weights/{name}": value for name, value in problem.weights.items()}
    for kind, step in (("labelled", problem.labelled), ("unlabelled", problem.unlabelled)):
        if step is not None:
            fields = {name: value for name, value in vars(step.batch).items() if value is not None}
            arrays.update({f"{kind}/batch/{name}": value for name, value in fields.items()})
            arrays.update({f"{kind}/noise/{name}": value for name, value in step.noise.items()})
    return arrays


def _step_from(kind: str, arrays: Mapping[str, np.ndarray]) -> Step | None:
    batch = _under(f"{kind}/batch", arrays)
    return Step(Batch(**batch), _under(f"{kind}/noise", arrays)) if batch else None


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    return {name.removeprefix(f"{prefix}/"): value for name, value in arrays.items() if name.startswith(f"{prefix}/")}


def main() -> None:
    """Write all problems anew."""
    FOLDER.mkdir(exist_ok=True)
    for path in problem_files():
        path.unlink()
    problems = generate_problems()
    for problem in problems:
        save_problem(problem, FOLDER / f"{problem.name}.safetensors")
    size = sum(path.stat().st_size for path in problem_files())
    print(f"{len(problems)} problems, {size / 1000:.0f} kB, in {FOLDER}")


if __name__ == "__main__":
    main()
