"""The arguments of `tune`, and their help."""

from jsonargparse import SUPPRESS, ArgumentParser

from seqssvae.cli.shared_arguments import section_loaders
from seqssvae.config import Config, Precision
from seqssvae.config.fields import field_paths
from seqssvae.recipes.names import RecipeName
from seqssvae.tuning.names import PrunerName, SamplerName


def add_tune_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `tune`: its own, every field of the configuration, and a space for every field."""
    parser.add_argument("--config", type=str | None, metavar="FILE", help="YAML file with any of the fields below.")
    text = "YAML file of search spaces by field; or a space a flag: --space.optimizer.learning_rate 'log 1e-4 1e-2'."
    parser.add_argument("--spaces", type=str | None, metavar="FILE", help=text)
    parser.add_argument("--output", type=str | None, metavar="SWEEP", help="The directory to make, or to go on in.")
    parser.add_argument("--trials", type=int | None, help="How many trials there are to be in all; else 50.")
    parser.add_argument("--minutes", type=float | None, help="Begin no trial after so many minutes.")
    parser.add_argument("--backend", type=str | None, help="The twin that trains: torch or jax; else one you have.")
    parser.add_argument("--recipe", type=RecipeName, help="What is tuned; ssvae by default, and not auto.")
    text = "Where trials are kept, for many machines: a URL of Optuna's, or journal:FILE; else SWEEP/study.db."
    parser.add_argument("--storage", type=str | None, metavar="URL", help=text)
    parser.add_argument("--study", type=str | None, metavar="NAME", help="The study's name there; else seqssvae.")
    text = "tpe learns from the trials before (the default); random does not."
    parser.add_argument("--sampler", type=SamplerName, help=text)
    text = "End a trial that is worse than the median of those before (the default), by successive halving, or never."
    parser.add_argument("--pruner", type=PrunerName, help=text)
    parser.add_argument("--seed", type=int | None, help="Seed of what is tried; that of training is training.seed.")
    parser.add_argument("--keep-run", action="store_true", help="Keep the run of the best trial, in SWEEP/runs.")
    text = "The framework's name of a device, such as cpu or cuda."
    parser.add_argument("--device", type=str | None, help=text)
    parser.add_argument("--precision", type=Precision | None, help="Short for --training.precision.")
    parser.add_argument("--quiet", action="store_true", help="Print errors, warnings and the result only.")
    parser.add_class_arguments(Config, None)
    for action in section_loaders(parser):
        action.help = SUPPRESS
    for path in field_paths():
        parser.add_argument(f"--space.{path}", type=str | None, help=SUPPRESS)
