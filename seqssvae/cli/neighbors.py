"""The command `neighbors`."""

import dataclasses

from jsonargparse import Namespace

from seqssvae.cli.activity import activity
from seqssvae.cli.inputs import check_options, file_columns, row_corpus, run_directory
from seqssvae.cli.messages import warn_of_counts
from seqssvae.data.corpus import encode_table
from seqssvae.data.files import read_table
from seqssvae.data.table import TextColumn
from seqssvae.errors import printable
from seqssvae.inference.evaluate import encode
from seqssvae.inference.neighbors import nearest


def neighbors_command(arguments: Namespace) -> None:
    """Print the rows of a file that are nearest to a row: identifier (if there is one), sequence, label, distance."""
    check_options(arguments, {"count": 1})
    directory = run_directory(arguments)
    with activity(source=arguments.data) as show:
        columns = file_columns(directory.config.data, arguments)
        table = read_table(arguments.data, columns, labelled=True, texts=True, report=show)
        show(f"opening {directory.path}")
        run = directory.open(arguments.backend, arguments.device)
    query = row_corpus(run, [arguments.query], arguments.source)
    unlabelled = dataclasses.replace(table, labels=TextColumn.missing(len(table)))  # the run need not know the labels
    corpus = encode_table(unlabelled, run.schema, run.config.data, too_long="truncate")
    warn_of_counts(corpus, run.config.data.max_length)
    near, among = (encode(run.backend, rows, run.config, arguments.features) for rows in (query, corpus))
    nearest_rows = nearest(near, among, arguments.count)
    texts, ids = table.texts["sequence"], table.texts.get("id")
    for index, distance in zip(nearest_rows.indices[0].tolist(), nearest_rows.distances[0].tolist(), strict=True):
        name = [] if ids is None else [printable(ids[index])]
        print(*name, printable(texts[index]), printable(table.labels[index] or ""), f"{distance:.8g}", sep="\t")
