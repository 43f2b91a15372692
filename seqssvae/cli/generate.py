"""The commands that write new sequences: `generate` and `transduce`."""

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Int
from jsonargparse import Namespace

from seqssvae.cli.activity import activity
from seqssvae.cli.inputs import (
    announced,
    check_options,
    check_source,
    file_columns,
    read_rows_to_write,
    row_corpus,
    run_directory,
)
from seqssvae.cli.messages import say, warn
from seqssvae.cli.output import STANDARD_OUTPUT, check_output, write_table
from seqssvae.config import DataConfig, DecodingMethod, DecodingOptions
from seqssvae.data.files import read_table
from seqssvae.data.vocabulary import UNK, Vocabulary
from seqssvae.errors import ConfigurationError, DataError, printable
from seqssvae.inference.generate import MOST_SEQUENCES, Generated, check_generator, generate
from seqssvae.inference.transduce import transduce
from seqssvae.inference.transfer import interpolate, relabel
from seqssvae.runs.run import Run


def generate_command(arguments: Namespace) -> None:
    """Print sequences of one label: sequence, label, log p(x|y,z)."""
    _check_generate(arguments)
    held = arguments.like is not None or arguments.interpolate is not None
    options = _decoding_options(arguments, "greedy" if held else "sample")
    directory = run_directory(arguments)
    rows = None if arguments.check is None else _rows_to_check_by(arguments, directory.config.data)
    check_generator(directory.config.objective)
    run = directory.open(arguments.backend, arguments.device)
    check_source(run, arguments.source)
    sequences = _generated(run, arguments, options)
    for sequence in sequences:
        print(
            printable(run.vocabulary.join(sequence.symbols)),
            printable(arguments.label),
            f"{sequence.log_p:.8g}",
            sep="\t",
        )
    unended = sum(not sequence.ended for sequence in sequences)
    if unended:
        longest = options.longest(run.config.data)
        warn(f"{unended} of {len(sequences)} sequences have no END within {longest} symbols (--max-length).")
    if rows is not None:
        say(_check(run, sequences, arguments, *rows))


def _check_generate(arguments: Namespace) -> None:
    """Check options of `generate`, by themselves and beside each other."""
    check_options(arguments, {"count": 1, "seed": 0}, {"count": MOST_SEQUENCES})
    if arguments.interpolate is not None:
        check_options(arguments, {"count": 2})
    if arguments.like is not None and arguments.interpolate is not None:
        raise ConfigurationError("--like and --interpolate are two things to do; give one of them.")
    if arguments.from_label is not None and arguments.like is None:
        raise ConfigurationError("--from-label is the label of the row --like; give that as well.")


def _decoding_options(arguments: Namespace, method: DecodingMethod) -> DecodingOptions:
    """How sequences are chosen, by this method where none is given; errors name the options of the command line."""
    names = "max_length", "beam_width", "temperature", "top_p", "allow_unknown"
    try:
        return DecodingOptions(method=arguments.method or method, **{name: arguments[name] for name in names})
    except ConfigurationError as error:
        name, _, rest = str(error).partition(" ")
        raise ConfigurationError(f"--{name.replace('_', '-')} {rest}") from error


def _generated(run: Run, arguments: Namespace, options: DecodingOptions) -> list[Generated]:
    """The sequences that are asked for."""
    label, seed = run.labels.index(arguments.label), arguments.seed
    model = run.backend, run.vocabulary
    if arguments.interpolate is not None:
        ends, count = row_corpus(run, arguments.interpolate, arguments.source), arguments.count
        return interpolate(*model, ends, label, 7 if count is None else count, run.config, options, seed)
    if arguments.like is not None:
        corpus = row_corpus(run, [arguments.like] * (arguments.count or 1), arguments.source)
        if arguments.from_label is not None:
            corpus = corpus.with_labels(np.full(len(corpus), run.labels.index(arguments.from_label)))
        return relabel(*model, corpus, label, run.config, options, seed)
    sources, source = run.schema.source_vocabulary, None
    if sources is not None:
        source = _source_ids(sources, arguments.source, run.config.data.max_length)
    count = 10 if arguments.count is None else arguments.count
    return generate(*model, label, count, options, seed, source)


def _rows_to_check_by(arguments: Namespace, data: DataConfig) -> tuple[list[tuple[str, ...]], list[str | None]]:
    """The rows of `--check` and their labels."""
    columns = dataclasses.replace(file_columns(data, arguments), source_column=0)
    if not columns.label_column:
        raise ConfigurationError("--check needs rows with labels, and the run was trained with data.label_column: 0.")
    table = read_table(arguments.check, columns, labelled=True)
    from seqssvae.recipes.novelty import check_labels

    labels = list(table.labels)
    try:
        check_labels(arguments.label, labels)
    except DataError as error:
        raise DataError(f"{arguments.check}: {error}") from error
    return list(table.sequences), labels


def _check(
    run: Run,
    sequences: Sequence[Generated],
    arguments: Namespace,
    rows: Sequence[tuple[str, ...]],
    labels: Sequence[str | None],
) -> str:
    """What generated sequences are like beside the rows of `--check`, in a sentence."""
    from seqssvae.recipes.novelty import check_generated  # the other commands need no classifier

    try:
        check = check_generated([one.symbols for one in sequences], arguments.label, rows, labels)
    except DataError as error:
        raise DataError(f"{arguments.check}: {error}") from error
    right = f"right about {check.classifier_accuracy:.1%} of those in cross-validation"
    return (
        f"of {check.count} sequences {check.unique:.1%} are different ones, {check.new:.1%} are not in "
        f"{arguments.check}, and {check.of_label:.1%} are of {arguments.label} by a classifier that learned from its "
        f"{check.labelled_rows} labelled rows ({right})."
    )


def transduce_command(arguments: Namespace) -> None:
    """Write what is made of a file's sources: source, sequence, label, log p(x|source,y,z)."""
    check_options(arguments, {"seed": 0})
    options = _decoding_options(arguments, "greedy")
    if arguments.all_labels and (arguments.score or arguments.label_column is not None):
        raise ConfigurationError("--all-labels makes a sequence for every label; leave --score and --label-column out.")
    check_output(arguments.output, arguments.overwrite, arguments.data)
    if run_directory(arguments).schema.source_vocabulary is None:
        raise ConfigurationError(f"The run {arguments.run} has no sources: it was trained with data.source_column: 0.")
    rows = read_rows_to_write(arguments, labelled=not arguments.all_labels, name="source")
    run, vocabulary = rows.run, rows.run.vocabulary
    of_each = len(run.labels) if arguments.all_labels else 1
    counts = Counter[str]()

    def lines(show: Callable[[str], None]) -> Iterator[tuple[str, ...]]:
        for block in announced(rows.blocks, show):
            corpus = block.corpus
            assert corpus.sources is not None
            seed = block.seed(arguments.seed)
            sources, y = corpus.sources.loaded(), corpus.y
            if arguments.all_labels:
                sources, y = sources.take(np.arange(len(y)).repeat(of_each)), np.tile(np.arange(of_each), len(y))
            made = transduce(run.backend, vocabulary, sources, y, run.config, options, seed)
            counts["rows"] += len(made)
            counts["unended"] += sum(not sequence.ended for sequence in made)
            targets = block.texts.get("sequence", [""] * len(corpus))
            given = (
                [text for text in column for _ in range(of_each)] for column in (*block.columns("source"), targets)
            )
            for *texts, target, sequence in zip(*given, made, strict=True):
                text = vocabulary.join(sequence.symbols)
                counts["hits"] += sequence.symbols == vocabulary.split(target)
                yield *texts, text, run.labels.names[sequence.label], f"{sequence.log_p:.8g}"

    with activity(source=arguments.data, output=arguments.output) as show:
        write_table(arguments.output, (*rows.names, "sequence", "label", "log_p"), lines(show))
    hits, unended, count = counts["hits"], counts["unended"], counts["rows"]
    if arguments.score:
        column = file_columns(run.config.data, arguments).sequence_column
        sentence = f"{hits} of {count} sequences ({hits / count:.1%}) are as in column {column}."
        print(sentence, file=sys.stderr if arguments.output == STANDARD_OUTPUT else sys.stdout)
    if unended:
        warn(f"{unended} of {count} sequences have no END within the greatest length (--max-length).")


def _source_ids(vocabulary: Vocabulary, text: str, max_length: int) -> Int[np.ndarray, " S"]:
    """Return the ids of the source that `--source` gives.

    Args:
        vocabulary: The symbols of sources.
        text: The source.
        max_length: Greatest length of a source, in symbols without END.

    Raises:
        ConfigurationError: If it has no symbol, or too many.
    """
    symbols = vocabulary.split(text)
    if not 0 < len(symbols) <= max_length:
        raise ConfigurationError(f"--source must have 1 to {max_length} symbols, not {len(symbols)}.")
    ids = vocabulary.encode(symbols)
    if unknown := int((ids == UNK).sum()):
        warn(f"{unknown} of the symbols of --source are not in the vocabulary and were read as UNK.")
    return ids
