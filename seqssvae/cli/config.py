"""The command `config`: a configuration file to begin with."""

from jsonargparse import Namespace

from seqssvae.config.template import template
from seqssvae.recipes.named import with_recipe


def config_command(arguments: Namespace) -> None:
    """Print every field, what it is and its value with a recipe, as YAML."""
    print(f"# seqssvae fit --recipe {arguments.recipe} --config FILE reads this; leave out what you do not change.")
    print(template(with_recipe(arguments.recipe, {})), end="")
