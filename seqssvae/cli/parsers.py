"""The arguments of each command, and their help."""

from typing import Any

from jsonargparse import SUPPRESS, ArgumentParser

from seqssvae.backend import DecodingMethod
from seqssvae.config import Config, DataConfig, FileFormat, Precision
from seqssvae.config.fields import field_paths
from seqssvae.datasets import DatasetName
from seqssvae.loggers.named import LoggerName
from seqssvae.recipes.names import PredictionMethod, RecipeName


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
    _add_device(parser)
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
    _add_no_verify(parser)
    parser.add_class_arguments(Config, None)
    for action in section_loaders(parser):
        action.help = SUPPRESS


def add_prepare_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `prepare`: its own, and the fields of the section `data`."""
    parser.add_argument("files", type=str, nargs="+", metavar="FILE", help="Files of rows, in any format.")
    parser.add_argument("--output", type=str, required=True, metavar="DIRECTORY", help="The directory to make.")
    parser.add_argument("--config", type=str | None, metavar="FILE", help="YAML file, whose section data is read.")
    parser.add_class_arguments(DataConfig, "data")
    for action in section_loaders(parser):
        action.help = SUPPRESS


def add_evaluate_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `evaluate`."""
    _add_run(parser)
    _add_data(parser, labelled=True)
    parser.add_argument("--seed", type=int, default=0, help="Seed of the noise of z.")
    parser.add_argument(
        "--importance-samples", type=int, default=0, metavar="P", help="Draws of z for the importance-weighted bound."
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object in place of the tables.")
    parser.add_argument(
        "--confusion",
        type=str | None,
        metavar="FILE",
        help="TSV file to write (- for stdout): rows by label and predicted label.",
    )
    text = "TSV file to write: of each row the label, the predicted one, and the terms of its ELBO."
    parser.add_argument("--rows", type=str | None, metavar="FILE", help=text)
    text = "Replace the files of --confusion and --rows if they exist."
    parser.add_argument("--overwrite", action="store_true", help=text)


def add_diagnose_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `diagnose`."""
    _add_run(parser)
    _add_data(parser, labelled=True)
    parser.add_argument("--seed", type=int, default=0, help="Seed of the rows that are looked at, and of z.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object in place of tables and sentences.")


def add_report_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `report`."""
    parser.add_argument("runs", type=str, nargs="+", metavar="RUN", help="Run directories that `seqssvae fit` made.")
    parser.add_argument("--backend", type=str | None, help="torch or jax; by default the one that trained each run.")
    _add_no_verify(parser)
    _add_device(parser)
    text = "File of rows to look at: the more with a label that were not trained on, the more is shown."
    parser.add_argument("--data", type=str | None, metavar="FILE", help=text)
    _add_columns(parser, labelled=True)
    parser.add_argument(
        "--output", type=str, default="report.html", metavar="FILE", help="HTML file to write; - for stdout."
    )
    parser.add_argument("--overwrite", action="store_true", help="Replace the output file if it exists.")
    parser.add_argument("--no-certificate", action="store_true", help="Do not compare the twins, which takes a while.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of whatever is drawn.")


def add_compare_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `compare`: its own, and every field of the configuration."""
    parser.add_argument("--config", type=str | None, metavar="FILE", help="YAML file with any of the fields below.")
    parser.add_argument("--backend", type=str | None, help="The twin that trains: torch or jax; else one you have.")
    _add_device(parser)
    parser.add_argument("--precision", type=Precision | None, help="Short for --training.precision.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object in place of the table.")
    parser.add_class_arguments(Config, None)
    for action in section_loaders(parser):
        action.help = SUPPRESS


def add_predict_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `predict`."""
    add_rows_to_write_arguments(parser)
    parser.add_argument(
        "--abstain-below", type=float | None, metavar="P", help="Leave the label empty where none is as probable as P."
    )
    parser.add_argument(
        "--method",
        type=PredictionMethod | None,
        help="The network's q(y|x), its generator's posterior p(y|x), or all that was learned (the default of a run "
        "of the recipe auto).",
    )


def add_encode_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `encode`."""
    add_rows_to_write_arguments(parser)
    _add_features(parser)


def add_rows_to_write_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of a command that writes a line for each row."""
    _add_run(parser)
    _add_data(parser, labelled=False)
    _add_output(parser)


def add_score_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `score`."""
    add_rows_to_write_arguments(parser)
    parser.add_argument(
        "--importance-samples", type=int, default=100, metavar="P", help="Draws of z for each row and label."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of these draws.")


def add_generate_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `generate`."""
    _add_run(parser)
    parser.add_argument("--label", type=str, required=True, metavar="NAME", help="The label to generate for.")
    parser.add_argument(
        "--count",
        type=int | None,
        help="Number of sequences: by default 10, of --like 1, of --interpolate 7, with those of its ends.",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of z and of the symbols.")
    parser.add_argument(
        "--method",
        type=DecodingMethod | None,
        help="Draw each symbol (the default where z is drawn), take the most probable one (else), or search for the "
        "most probable sequence.",
    )
    parser.add_argument(
        "--source", type=str | None, metavar="TEXT", help="What to make it from, if the run has sources."
    )
    _add_search(parser)
    parser.add_argument(
        "--like",
        type=str | None,
        metavar="TEXT",
        help="A row whose z is kept: what it would be, were it of --label.",
    )
    parser.add_argument(
        "--from-label", type=str | None, metavar="NAME", help="That row's own label; else its most probable one."
    )
    parser.add_argument(
        "--interpolate",
        type=str,
        nargs=2,
        metavar=("TEXT1", "TEXT2"),
        help="Two rows: what is decoded on the line from the z of one to that of the other, both with --label.",
    )
    parser.add_argument(
        "--check",
        type=str | None,
        metavar="FILE",
        help="File of rows with labels, such as those of training: how many of the sequences are new, different, "
        "and of the label by a classifier that learned from these rows alone, is printed on stderr.",
    )


def add_transduce_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `transduce`."""
    _add_run(parser)
    parser.add_argument("--data", type=str, required=True, metavar="FILE", help="File of sources, a row each.")
    _add_columns(parser, labelled=True)
    _add_output(parser)
    parser.add_argument(
        "--score", action="store_true", help="Print how many sequences equal those in the file's column of sequences."
    )
    parser.add_argument(
        "--method",
        type=DecodingMethod,
        default="greedy",
        help="Take the most probable symbol, search for the most probable sequence, or draw each symbol.",
    )
    _add_search(parser)
    parser.add_argument("--seed", type=int, default=0, help="Seed of what --method sample draws.")


def add_neighbors_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `neighbors`."""
    _add_run(parser)
    _add_data(parser, labelled=True)
    parser.add_argument("--query", type=str, required=True, metavar="TEXT", help="The row whose neighbours are wanted.")
    parser.add_argument("--source", type=str | None, metavar="TEXT", help="Its source, if the run has sources.")
    parser.add_argument("--count", type=int, default=5, help="Number of neighbours.")
    _add_features(parser)


def add_verify_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `verify`."""
    parser.add_argument("run", type=str, help="The run directory that `seqssvae fit` made.")
    _add_no_verify(parser)
    _add_data(parser, labelled=True, required=False)
    _add_device(parser)
    parser.add_argument("--seed", type=int, default=0, help="Seed of the noise given to both twins.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object in place of the tables.")


def add_gradient_estimators_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `gradient-estimators`."""
    parser.add_argument("run", type=str | None, nargs="?", help="The run directory that `seqssvae fit` made.")
    parser.add_argument(
        "--config",
        type=str | None,
        metavar="FILE",
        help="In place of a run: a YAML file that describes a model, which is measured with its first weights.",
    )
    text = "torch or jax; by default the one that trained the run, or one you have."
    parser.add_argument("--backend", type=str | None, help=text)
    _add_no_verify(parser)
    _add_device(parser)
    _add_data(parser, labelled=True)
    parser.add_argument("--k", nargs="+", type=int, default=[1, 4], help="Labels that top_k sums out, one or more.")
    parser.add_argument("--rows", type=int | None, help="Rows of the batch; else training.batch_size.")
    parser.add_argument("--draws", type=int, default=50, help="How often labels are drawn.")
    parser.add_argument("--repetitions", type=int, default=7, help="How many steps are timed.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the rows and of the noise.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object in place of the table.")


def add_import_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `import-yoyodyne`."""
    parser.add_argument("checkpoint", type=str, help="A checkpoint file that yoyodyne wrote.")
    parser.add_argument("run", type=str, help="The run directory to make.")


def section_loaders(parser: ArgumentParser) -> list[Any]:
    """Return jsonargparse's own options that load a section from a file, which `--config` does here."""
    sections = {f"--{path.rpartition('.')[0]}" for path in field_paths()}
    return [action for action in parser._actions if sections & set(action.option_strings)]


def _add_run(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="The run directory that `seqssvae fit` made.")
    parser.add_argument("--backend", type=str | None, help="torch or jax; by default the one that trained the run.")
    _add_no_verify(parser)
    _add_device(parser)


def _add_no_verify(parser: ArgumentParser) -> None:
    text = "Open a run although its files are not those that were written."
    parser.add_argument("--no-verify", action="store_true", help=text)


def _add_device(parser: ArgumentParser) -> None:
    parser.add_argument("--device", type=str | None, help="The framework's name of a device, such as cpu or cuda.")


def _add_data(parser: ArgumentParser, labelled: bool, required: bool = True) -> None:
    text = "File of rows (TSV, CSV, FASTA, JSON lines, Parquet), or - for standard input."
    if required:
        parser.add_argument("--data", type=str, required=True, metavar="FILE", help=text)
    else:
        parser.add_argument("--data", type=str | None, metavar="FILE", help=f"{text} Without it, rows are made up.")
    _add_columns(parser, labelled)


def _add_columns(parser: ArgumentParser, labelled: bool) -> None:
    text = "Column of the sequence, by number or name, if not as in training."
    parser.add_argument("--sequence-column", type=int | str | None, help=text)
    text = "Column of the source, if the model has sources."
    parser.add_argument("--source-column", type=int | str | None, help=text)
    if labelled:
        text = "Column of the label; 0 if there is none."
        parser.add_argument("--label-column", type=int | str | None, help=text)
        text = "File of labels by identifier, whose column is --label-column."
        parser.add_argument("--labels-file", type=str | None, metavar="FILE", help=text)
        parser.add_argument("--labels-id-column", type=int | str | None, help="Its column of identifiers.")
    parser.add_argument("--id-column", type=int | str | None, help="Column of an identifier; 0 if there is none.")
    parser.add_argument("--header", type=bool | None, help="Whether the first line names the columns.")
    parser.add_argument("--format", type=FileFormat | None, help="How the file is read, if its name does not tell.")


def _add_output(parser: ArgumentParser) -> None:
    parser.add_argument("--output", type=str, required=True, metavar="FILE", help="TSV file to write; - for stdout.")
    parser.add_argument("--overwrite", action="store_true", help="Replace the output file if it exists.")


def _add_search(parser: ArgumentParser) -> None:
    parser.add_argument("--beam-width", type=int, default=5, help="Candidates kept by --method beam.")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="Of --method sample: below 1 symbols are surer, above 1 wilder."
    )
    parser.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        help="Of --method sample: draw from the fewest symbols that have this probability together.",
    )
    parser.add_argument("--max-length", type=int | None, help="Most symbols of a sequence; else data.max_length.")


def _add_features(parser: ArgumentParser) -> None:
    text = "The features that q(y|x) reads, in place of the mean of z, which leaves out what the label explains."
    parser.add_argument("--features", action="store_true", help=text)
