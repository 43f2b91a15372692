"""The commands that write new sequences: `generate` and `transduce`."""

import numpy as np
from jaxtyping import Int
from jsonargparse import Namespace

from seqssvae.cli.inputs import check_options, file_columns, run_directory
from seqssvae.cli.messages import printable, warn, warn_of_counts
from seqssvae.cli.output import check_output, write_table
from seqssvae.data.corpus import encode_table
from seqssvae.data.tsv import read_table
from seqssvae.data.vocabulary import UNK, Vocabulary
from seqssvae.errors import ConfigurationError
from seqssvae.inference.evaluate import generate, greatest_length
from seqssvae.inference.transduce import transduce


def generate_command(arguments: Namespace) -> None:
    """Print new sequences of one label: sequence, label, log p(x|y,z)."""
    check_options(arguments, {"count": 1, "seed": 0, "beam_width": 1, "max_length": 1})
    run = run_directory(arguments).open(arguments.backend, arguments.device)
    max_length = greatest_length(arguments.max_length, run.config)
    sources = run.schema.source_vocabulary
    if (arguments.source is not None) != (sources is not None):
        what = "has no sources; leave --source out" if sources is None else "has sources; give one by --source"
        raise ConfigurationError(f"The run {run.path} {what}.")
    sequences = generate(
        run.backend,
        run.vocabulary,
        run.labels.index(arguments.label),
        arguments.count,
        max_length,
        arguments.seed,
        arguments.method,
        arguments.beam_width,
        None if sources is None else _source_ids(sources, arguments.source, run.config.data.max_length),
    )
    for sequence in sequences:
        print(
            printable(run.vocabulary.join(sequence.symbols)),
            printable(arguments.label),
            f"{sequence.log_p:.8g}",
            sep="\t",
        )
    unended = sum(not sequence.ended for sequence in sequences)
    if unended:
        warn(f"{unended} of {len(sequences)} sequences have no END within {max_length} symbols (--max-length).")


def transduce_command(arguments: Namespace) -> None:
    """Write what is made of a file's sources: source, sequence, label, log p(x|source,y,z)."""
    check_options(arguments, {"seed": 0, "beam_width": 1, "max_length": 1})
    check_output(arguments.output, arguments.overwrite)
    directory = run_directory(arguments)
    config, sources = directory.config, directory.schema.source_vocabulary
    if sources is None:
        raise ConfigurationError(f"The run {arguments.run} has no sources: it was trained with data.source_column: 0.")
    data = file_columns(config.data, arguments, targets=arguments.score)
    table = read_table(arguments.data, data, labelled=True, targets=arguments.score)
    run = directory.open(arguments.backend, arguments.device)
    corpus = encode_table(table, run.schema, run.config.data, "truncate")
    warn_of_counts(corpus, run.config.data.max_length)
    assert corpus.sources is not None
    assert table.sources is not None
    search = arguments.method, arguments.beam_width, arguments.max_length, arguments.seed
    sequences = transduce(run.backend, run.vocabulary, corpus.sources, corpus.y, run.config, *search)
    texts = [run.vocabulary.join(sequence.symbols) for sequence in sequences]
    names = run.labels.names
    lines = (
        (source, text, names[sequence.label], f"{sequence.log_p:.8g}")
        for source, text, sequence in zip(table.sources.joined(sources.separator), texts, sequences, strict=True)
    )
    write_table(arguments.output, ("source", "sequence", "label", "log_p"), lines)
    if arguments.score:
        targets = table.sequences.joined(run.vocabulary.separator)
        hits = sum(text == target for text, target in zip(texts, targets, strict=True))
        print(f"{hits} of {len(table)} sequences ({hits / len(table):.1%}) are as in column {data.sequence_column}.")
    unended = sum(not sequence.ended for sequence in sequences)
    if unended:
        warn(f"{unended} of {len(sequences)} sequences have no END within the greatest length (--max-length).")


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
