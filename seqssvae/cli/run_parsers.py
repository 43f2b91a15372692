"""The arguments of each command that uses a run, and their help."""

from jsonargparse import ArgumentParser

from seqssvae.cli.shared_arguments import (
    add_columns,
    add_data,
    add_device,
    add_features,
    add_no_verify,
    add_output,
    add_run,
)
from seqssvae.config import DecodingMethod
from seqssvae.recipes.names import PredictionMethod


def add_evaluate_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `evaluate`."""
    add_run(parser)
    add_data(parser, labelled=True)
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
    add_run(parser)
    add_data(parser, labelled=True)
    parser.add_argument("--seed", type=int, default=0, help="Seed of the rows that are looked at, and of z.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object in place of tables and sentences.")


def add_report_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `report`."""
    parser.add_argument("runs", type=str, nargs="+", metavar="RUN", help="Run directories that `seqssvae fit` made.")
    parser.add_argument("--backend", type=str | None, help="torch or jax; by default the one that trained each run.")
    add_no_verify(parser)
    add_device(parser)
    text = "File of rows to look at: the more with a label that were not trained on, the more is shown."
    parser.add_argument("--data", type=str | None, metavar="FILE", help=text)
    add_columns(parser, labelled=True)
    parser.add_argument(
        "--output", type=str, default="report.html", metavar="FILE", help="HTML file to write; - for stdout."
    )
    parser.add_argument("--overwrite", action="store_true", help="Replace the output file if it exists.")
    parser.add_argument("--no-certificate", action="store_true", help="Do not compare the twins, which takes a while.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of whatever is drawn.")


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
    add_features(parser)


def add_rows_to_write_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of a command that writes a line for each row."""
    add_run(parser)
    add_data(parser, labelled=False)
    add_output(parser)


def add_score_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `score`."""
    add_rows_to_write_arguments(parser)
    parser.add_argument(
        "--importance-samples", type=int, default=100, metavar="P", help="Draws of z for each row and label."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of these draws.")


def add_generate_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `generate`."""
    add_run(parser)
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
    add_run(parser)
    parser.add_argument("--data", type=str, required=True, metavar="FILE", help="File of sources, a row each.")
    add_columns(parser, labelled=True)
    add_output(parser)
    text = "Make a sequence of each source for every label, a line each: all tags of each lemma."
    parser.add_argument("--all-labels", action="store_true", help=text)
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
    add_run(parser)
    add_data(parser, labelled=True)
    parser.add_argument("--query", type=str, required=True, metavar="TEXT", help="The row whose neighbours are wanted.")
    parser.add_argument("--source", type=str | None, metavar="TEXT", help="Its source, if the run has sources.")
    parser.add_argument("--count", type=int, default=5, help="Number of neighbours.")
    add_features(parser)


def add_push_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `push`."""
    add_run(parser)
    parser.add_argument("repository", type=str, help="The repository to write to, USER/NAME; made if need be.")
    text = "File of rows that were not learned from: accuracy, calibration and diagnosis by them stand in the card."
    parser.add_argument("--data", type=str | None, metavar="FILE", help=text)
    add_columns(parser, labelled=True)
    parser.add_argument("--private", action="store_true", help="Make the repository private, if it is made.")
    parser.add_argument("--no-certificate", action="store_true", help="Do not compare the twins, which takes a while.")


def add_pull_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `pull`."""
    parser.add_argument("repository", type=str, help="The repository to read, USER/NAME.")
    parser.add_argument("run", type=str, help="The run directory to make.")
    parser.add_argument("--revision", type=str | None, help="A branch, tag or commit of it.")


def add_verify_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `verify`."""
    parser.add_argument("run", type=str, help="The run directory that `seqssvae fit` made.")
    add_no_verify(parser)
    add_data(parser, labelled=True, required=False)
    add_device(parser)
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
    add_no_verify(parser)
    add_device(parser)
    add_data(parser, labelled=True)
    parser.add_argument("--k", nargs="+", type=int, default=[1, 4], help="Labels that top_k sums out, one or more.")
    parser.add_argument("--rows", type=int | None, help="Rows of the batch; else training.batch_size.")
    parser.add_argument("--draws", type=int, default=50, help="How often labels are drawn.")
    parser.add_argument("--repetitions", type=int, default=7, help="How many steps are timed.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the rows and of the noise.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object in place of the table.")


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
    parser.add_argument(
        "--allow-unknown",
        action="store_true",
        help="Let sequences hold <UNK>, which stands for every symbol that is not known.",
    )
