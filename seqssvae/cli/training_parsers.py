"""The arguments of each command that makes a run or trains without one, and their help."""

from typing import Literal

from jsonargparse import SUPPRESS, ArgumentParser

from seqssvae.cli.shared_arguments import add_device, add_no_verify, section_loaders
from seqssvae.config import Config, DataConfig, Precision
from seqssvae.datasets import DatasetName
from seqssvae.loggers.named import LoggerName
from seqssvae.recipes.names import RecipeName


def add_demo_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `demo`."""
    parser.add_argument(
        "--dataset",
        type=DatasetName,
        default="peptides",
        help="peptides: antimicrobial or not; languages: word to language (needs seqssvae[demo]).",
    )
    parser.add_argument("--backends", nargs="+", type=str, help="Twins to train; all you have installed by default.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of everything that is drawn.")
    parser.add_argument("--output", type=str | None, metavar="DIRECTORY", help="Where the runs go; else runs/demo.")
    parser.add_argument("--quick", action="store_true", help="Take a few steps only, to see that it works.")


def add_fit_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `fit`: its own, and every field of the configuration."""
    parser.add_argument("--config", type=str | None, metavar="FILE", help="YAML file with any of the fields below.")
    parser.add_argument("--backend", type=str | None, help="The twin that trains: torch or jax; else one you have.")
    parser.add_argument(
        "--recipe",
        type=RecipeName,
        default="auto",
        help="auto compares candidates by cross-validation, averages those of use, and trains a network towards what "
        "they say; the others train a network alone, ssvae the recurrent one.",
    )
    parser.add_argument("--output", type=str | None, metavar="RUN", help="The run directory to make.")
    add_device(parser)
    parser.add_argument(
        "--devices", type=int | None, metavar="N", help="How many of them share each batch; with torchrun, all."
    )
    parser.add_argument("--precision", type=Precision | None, help="Short for --training.precision.")
    parser.add_argument(
        "--resume",
        type=str | None,
        metavar="RUN",
        help="Go on from the last checkpoint of this run, with its configuration: in place, or into --output.",
    )
    parser.add_argument(
        "--logger",
        nargs="+",
        type=LoggerName,
        help="Where else metrics go, one or more: tensorboard (into RUN/tensorboard), wandb, mlflow.",
    )
    parser.add_argument("--quiet", action="store_true", help="Print errors and warnings only.")
    add_no_verify(parser)
    parser.add_class_arguments(Config, None)
    for action in section_loaders(parser):
        action.help = SUPPRESS


def add_config_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `config`."""
    text = "The recipe whose values are printed, which fit --recipe is to be given as well."
    parser.add_argument("--recipe", type=RecipeName, default="auto", help=text)


def add_completion_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `completion`."""
    parser.add_argument("shell", type=Literal["bash", "zsh", "tcsh"], help="The shell.")


def add_prepare_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `prepare`: its own, and the fields of the section `data`."""
    parser.add_argument("files", type=str, nargs="+", metavar="FILE", help="Files of rows, in any format.")
    parser.add_argument("--output", type=str, required=True, metavar="DIRECTORY", help="The directory to make.")
    parser.add_argument("--config", type=str | None, metavar="FILE", help="YAML file, whose section data is read.")
    parser.add_class_arguments(DataConfig, "data")
    for action in section_loaders(parser):
        action.help = SUPPRESS


def add_compare_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `compare`: its own, and every field of the configuration."""
    parser.add_argument("--config", type=str | None, metavar="FILE", help="YAML file with any of the fields below.")
    parser.add_argument("--backend", type=str | None, help="The twin that trains: torch or jax; else one you have.")
    add_device(parser)
    parser.add_argument("--precision", type=Precision | None, help="Short for --training.precision.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object in place of the table.")
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")
    parser.add_class_arguments(Config, None)
    for action in section_loaders(parser):
        action.help = SUPPRESS


def add_import_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `import-yoyodyne`."""
    parser.add_argument("checkpoint", type=str, help="A checkpoint file that yoyodyne wrote.")
    parser.add_argument("run", type=str, help="The run directory to make.")
