"""The command that compares this tool with others on somebody's own rows: `compare`."""

import json

from jsonargparse import Namespace

from seqssvae.backend import Backend, Dimensions, get_backend
from seqssvae.cli.activity import activity
from seqssvae.cli.arguments import config_overrides
from seqssvae.cli.messages import warn_of_counts
from seqssvae.cli.recipe_tables import compare_table
from seqssvae.cli.tables import console
from seqssvae.config import Config
from seqssvae.config.settings import from_dict, merge, read_yaml
from seqssvae.data.prepare import prepare_files
from seqssvae.data.prepared_rows import prepared_settings
from seqssvae.recipes.auto import learning_rows
from seqssvae.recipes.compare import compare
from seqssvae.recipes.named import with_recipe
from seqssvae.runs.usable import usable_backend
from seqssvae.training.progress import progress


def compare_command(arguments: Namespace) -> None:
    """Print how this tool and others do in cross-validation over the labelled rows of a file."""
    settings = read_yaml(arguments.config) if arguments.get("config") else {}
    own = merge(settings, config_overrides(arguments))
    config = from_dict(with_recipe("auto", prepared_settings(own)))
    quiet = bool(arguments.get("quiet"))
    with activity(quiet, config.data.train) as show:
        prepared = prepare_files(config, show)
    warn_of_counts(prepared.training, config.data.max_length)
    name = arguments.get("backend") or usable_backend()

    def build(config: Config, dimensions: Dimensions) -> Backend:
        return get_backend(name)(config, dimensions, arguments.get("device"))

    get_backend(name).check_device(arguments.get("device"))
    with progress("comparison", quiet) as shown:
        comparisons = compare(config, prepared, build, shown.candidate)
    if arguments.get("json"):
        print(json.dumps([one._asdict() for one in comparisons]))
        return
    console().print(compare_table(comparisons, len(learning_rows(config, prepared).y)))
