"""The commands: what each does in a sentence, its usage, its arguments, and where its code is.

The code of a command is imported when the command runs, so that `--help` and a misspelled option answer at once.
"""

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from jsonargparse import ArgumentParser, Namespace

from seqssvae.cli import run_parsers, training_parsers
from seqssvae.cli.tune_parser import add_tune_arguments


class Command(NamedTuple):
    """A command of the command line.

    Args:
        summary: What it does, in a sentence.
        usage: Its arguments, as help shows them.
        add_arguments: Adds its arguments to a parser.
        function: Module (of this package) and name of the function that runs it, given its arguments.
        examples: Lines that help shows before the arguments.
    """

    summary: str
    usage: str
    add_arguments: Callable[[ArgumentParser], None]
    function: tuple[str, str]
    examples: tuple[str, ...] = ()

    def run(self, arguments: Namespace) -> int:
        """Run the command.

        Args:
            arguments: Its arguments.

        Returns:
            The exit status.
        """
        module, name = self.function
        return getattr(import_module(f"seqssvae.cli.{module}"), name)(arguments) or 0


COMMANDS = {
    "demo": Command(
        "Show on shipped data, with both twins, that unlabelled rows help.",
        "[--dataset peptides|languages] [--backends torch jax] [--seed S] [--output DIRECTORY] [--quick]",
        training_parsers.add_demo_arguments,
        ("demo", "demo_command"),
    ),
    "fit": Command(
        "Train a model on a file of rows, and write a run directory.",
        "--data.train FILE --output RUN | --resume RUN [--output RUN] [--backend torch|jax] [--recipe R] [--device D] "
        "[--devices N] [--precision P] [--logger tensorboard wandb mlflow] [--quiet] "
        "[--section.field VALUE ...]",
        training_parsers.add_fit_arguments,
        ("fit", "fit_command"),
        (
            "seqssvae fit --data.train rows.tsv --output RUN",
            "seqssvae fit --data.train rows.csv --data.sequence_column text --data.label_column topic --output RUN",
            "seqssvae fit --data.train proteins.fasta.gz --data.labels_file labels.tsv --recipe topics --output RUN",
            "seqssvae config > my.yaml    # all fields, to change some; below they are as well",
            "seqssvae fit --config my.yaml --data.train rows.tsv --training.budget 0.2 --output RUN",
            "seqssvae fit --resume RUN",
        ),
    ),
    "config": Command(
        "Print all fields of the configuration with their defaults, as a file for fit --config to change.",
        "[--recipe R] > FILE",
        training_parsers.add_config_arguments,
        ("config", "config_command"),
    ),
    "prepare": Command(
        "Read files that may be larger than memory once, into a directory that fit and all other commands can read.",
        "FILE [FILE ...] --output DIRECTORY [--config FILE] [--data.field VALUE ...]",
        training_parsers.add_prepare_arguments,
        ("prepare", "prepare_command"),
    ),
    "tune": Command(
        "Search fields of the configuration for what does best on the validation rows.",
        "--data.train FILE --space.section.field SPACE ... --output SWEEP [--spaces FILE] [--trials N] [--minutes M] "
        "[--recipe R] [--backend torch|jax] [--storage URL] [--keep-run] [--section.field VALUE ...]",
        add_tune_arguments,
        ("tune", "tune_command"),
    ),
    "compare": Command(
        "Cross-validate this tool and what it competes with on a file of rows: is it for your data?",
        "--data.train FILE [--config FILE] [--backend torch|jax] [--json] [--quiet] [--section.field VALUE ...]",
        training_parsers.add_compare_arguments,
        ("compare", "compare_command"),
    ),
    "evaluate": Command(
        "Measure how well a run does on a file of rows: ELBO, accuracy, confusion.",
        "RUN --data FILE [--backend B] [--device D] [--seed S] [--importance-samples P] [--json] [--confusion FILE] "
        "[--rows FILE]",
        run_parsers.add_evaluate_arguments,
        ("evaluate", "evaluate_command"),
    ),
    "diagnose": Command(
        "Say what a run has learned, and what is wrong with it, by a file of rows with and without label.",
        "RUN --data FILE [--backend B] [--device D] [--seed S] [--json]",
        run_parsers.add_diagnose_arguments,
        ("diagnose", "diagnose_command"),
    ),
    "report": Command(
        "Write an HTML page of what one run, or several side by side, have learned.",
        "RUN [RUN ...] [--data FILE] [--output FILE] [--overwrite] [--no-certificate] [--backend B] [--device D]",
        run_parsers.add_report_arguments,
        ("report", "report_command"),
    ),
    "score": Command(
        "Write log p(x) of every row of a file: low where a row is unlike those that were trained on.",
        "RUN --data FILE --output FILE [--importance-samples P] [--seed S] [--overwrite] [--backend B] [--device D]",
        run_parsers.add_score_arguments,
        ("evaluate", "score_command"),
    ),
    "predict": Command(
        "Write the label, and the probability of each label, of every row of a file.",
        "RUN --data FILE --output FILE [--method classifier|generative|combined] [--abstain-below P] [--overwrite] "
        "[--backend B] [--device D]",
        run_parsers.add_predict_arguments,
        ("evaluate", "predict_command"),
    ),
    "encode": Command(
        "Write the embedding (sum over y of q(y|x) loc(x, y)) of every row of a file, or its features.",
        "RUN --data FILE --output FILE [--features] [--overwrite] [--backend B] [--device D]",
        run_parsers.add_encode_arguments,
        ("evaluate", "encode_command"),
    ),
    "generate": Command(
        "Print new sequences of one label: sequence, label and log p(x|y,z), a line each.",
        "RUN --label NAME [--like TEXT [--from-label NAME] | --interpolate TEXT1 TEXT2] [--source TEXT] [--count N] "
        "[--seed S] [--method sample|greedy|beam] [--temperature T] [--top-p P] [--max-length N] [--check FILE]",
        run_parsers.add_generate_arguments,
        ("generate", "generate_command"),
    ),
    "neighbors": Command(
        "Print the rows of a file that are nearest to a row in the embedding: sequence, label, distance.",
        "RUN --data FILE --query TEXT [--count N] [--features] [--source TEXT] [--backend B] [--device D]",
        run_parsers.add_neighbors_arguments,
        ("neighbors", "neighbors_command"),
    ),
    "transduce": Command(
        "Write the sequence that is made of each source of a file, with its label or the most probable one.",
        "RUN --data FILE --output FILE [--overwrite] [--label-column N | --all-labels] [--score] "
        "[--method greedy|beam|sample] "
        "[--temperature T] [--top-p P] [--backend B] [--device D]",
        run_parsers.add_transduce_arguments,
        ("generate", "transduce_command"),
    ),
    "gradient-estimators": Command(
        "Compare the gradient estimators of a missing label: bias and variance of the gradient, time, memory.",
        "RUN|--config FILE --data FILE [--backend B] [--device D] [--k K ...] [--rows B] [--draws N] "
        "[--repetitions N] [--seed S] [--json]",
        run_parsers.add_gradient_estimators_arguments,
        ("checks", "gradient_estimators_command"),
    ),
    "push": Command(
        "Share a run on the Hugging Face Hub, with a card of what it is.",
        "RUN USER/NAME [--data FILE] [--private] [--no-certificate] [--backend B] [--device D]",
        run_parsers.add_push_arguments,
        ("hub", "push_command"),
    ),
    "pull": Command(
        "Make a run directory of a run that somebody shares on the Hugging Face Hub.",
        "USER/NAME RUN [--revision R]",
        run_parsers.add_pull_arguments,
        ("hub", "pull_command"),
    ),
    "import-yoyodyne": Command(
        "Make a run directory of a checkpoint that the plug-in for yoyodyne wrote.",
        "CKPT RUN",
        training_parsers.add_import_arguments,
        ("fit", "import_yoyodyne_command"),
    ),
    "completion": Command(
        "Print what a shell needs to complete commands and options.",
        "bash|zsh|tcsh",
        training_parsers.add_completion_arguments,
        ("completion", "completion_command"),
    ),
    "verify": Command(
        "Show that both twins compute the same for a run: losses, terms, predictions, gradients. Status 1 if not.",
        "RUN [--data FILE] [--device D] [--seed S] [--json]",
        run_parsers.add_verify_arguments,
        ("checks", "verify_command"),
    ),
}
"""The commands, by name, in the order of the help."""

ALIASES = {"estimators": "gradient-estimators"}
"""Earlier names of commands, which still work."""
