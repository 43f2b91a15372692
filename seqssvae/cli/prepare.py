"""The command that makes a directory of files which may be larger than memory: `prepare`."""

from collections.abc import Sequence

from jsonargparse import Namespace

from seqssvae.cli.activity import activity
from seqssvae.cli.arguments import config_overrides
from seqssvae.cli.messages import warn
from seqssvae.config.settings import from_dict, merge, read_yaml
from seqssvae.data.counts import describe
from seqssvae.data.opening import STANDARD_INPUT
from seqssvae.data.prepare_directory import prepare_directory


def prepare_command(arguments: Namespace) -> None:
    """Read files once, and write a directory of their rows."""
    path = arguments.get("config")
    settings = {"data": read_yaml(path).get("data", {})} if path else {}
    config = from_dict(merge(settings, config_overrides(arguments)))
    files: Sequence[str] = arguments.files
    with activity(source=STANDARD_INPUT if STANDARD_INPUT in files else None) as show:
        counts = prepare_directory(files, arguments.output, config.data, show)
    for sentence in describe(counts, arguments.output, config.data.max_length):
        warn(sentence)
    print(f"{counts.rows - counts.skipped} rows are in {arguments.output}.")
