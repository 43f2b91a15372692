"""Which fields of the configuration each hyperparameter of the estimator sets."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from seqssvae.config import Config
from seqssvae.config.settings import Settings, from_dict, merge, to_dict
from seqssvae.errors import ConfigurationError
from seqssvae.recipes.named import recipe_settings, with_recipe
from seqssvae.training.state import Observer

FIELDS = {
    "cell": ("model.cell",),
    "latent_size": ("model.latent_size",),
    "hidden_size": ("model.encoder.hidden_size",),
    "decoder_hidden_size": ("model.decoder.hidden_size",),
    "embedding_size": ("model.encoder.embedding_size", "model.decoder.embedding_size"),
    "layers": ("model.encoder.layers", "model.decoder.layers"),
    "conditioning": ("model.decoder.conditioning",),
    "dropout": ("model.dropout",),
    "word_dropout": ("model.word_dropout",),
    "encoder_word_dropout": ("model.encoder.word_dropout",),
    "alpha": ("objective.alpha",),
    "consistency": ("objective.consistency.weight",),
    "gradient_estimator": ("objective.gradient_estimator",),
    "k": ("objective.k",),
    "learning_rate": ("optimizer.learning_rate",),
    "epochs": ("training.epochs",),
    "max_steps": ("training.max_steps",),
    "budget": ("training.budget",),
    "batch_size": ("training.batch_size",),
    "metric": ("training.metric",),
    "patience": ("training.patience",),
    "min_steps": ("training.min_steps",),
    "standard_errors": ("training.standard_errors",),
    "validation_fraction": ("data.validation_fraction",),
    "max_length": ("data.max_length",),
    "separator": ("data.separator",),
    "random_state": ("training.seed",),
}
"""By name of a hyperparameter, the fields that it sets."""
SEEDS = 2**31 - 1
"""Seeds that are drawn are below this."""


def build_config(hyperparameters: Mapping[str, Any], config: Config | None, recipe: str = "ssvae") -> Config:
    """Return a configuration in which hyperparameters have set their fields.

    Args:
        hyperparameters: Values by name; one that is None, or that sets no field, leaves the configuration as it is.
        config: All other fields; None for those of the recipe.
        recipe: Name of the recipe.

    Raises:
        ConfigurationError: If a value is wrong, or `config` is no configuration.
    """
    if config is not None and not isinstance(config, Config):
        raise ConfigurationError(f"config must be a seqssvae.config.Config, not {type(config).__name__}.")
    recipe_settings(recipe)
    settings: Settings = {} if config is None else to_dict(config)
    for name, paths in FIELDS.items():
        value = hyperparameters[name]
        for path in paths if value is not None else ():
            overrides: Any = value.item() if isinstance(value, np.generic) else value
            for part in reversed(path.split(".")):
                overrides = {part: overrides}
            settings = merge(settings, overrides)
    return from_dict(settings if config is not None and recipe != "auto" else with_recipe(recipe, settings))


def known_hyperparameters(config: Config, recipe: str) -> dict[str, Any]:
    """Return the hyperparameters of an estimator that has a configuration, without those that are the recipe's own.

    Those of the fields that no hyperparameter sets are in `config`, which is left out where there are none.

    Args:
        config: The configuration.
        recipe: Name of the recipe.
    """
    here, usual = dict(_flat(to_dict(config))), dict(_flat(to_dict(build_config(dict.fromkeys(FIELDS), None, recipe))))
    hyperparameters: dict[str, Any] = {"random_state": config.training.seed}
    for name, paths in FIELDS.items():
        values = {here[path] for path in paths}
        if len(values) == 1 and any(here[path] != usual[path] for path in paths):
            hyperparameters[name] = values.pop()
    if build_config({**dict.fromkeys(FIELDS), **hyperparameters}, None, recipe) != config:
        hyperparameters["config"] = config
    return hyperparameters


def _flat(settings: Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def drawn_seed(random_state: Any, config: Config | None) -> Any:
    """Return the seed of a training; None for that of the configuration.

    Args:
        random_state: A seed, or what one is drawn from.
        config: The configuration; where neither it nor `random_state` is given, NumPy's global state is drawn from, as
            in scikit-learn.
    """
    if random_state is None and config is None:
        random_state = np.random.mtrand._rand
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(SEEDS))
    return int(random_state.randint(SEEDS)) if isinstance(random_state, np.random.RandomState) else random_state


def source_column(config: Config, source: object | None) -> int | str:
    """Return a column for the sources, as if they were in a file; 0 if there are none."""
    data = config.data
    columns = data.sequence_column, data.label_column, data.group_column
    free = 1 + max(column for column in (0, *columns) if isinstance(column, int))
    return 0 if source is None else data.source_column or free


def check_callbacks(callbacks: Any) -> list[Observer]:
    """Return the observers that an estimator is given.

    Raises:
        ConfigurationError: If one is no `Observer`, or they are no list.
    """
    observers = list(callbacks or []) if isinstance(callbacks, Iterable | None) else [callbacks]
    for observer in observers:
        if not isinstance(observer, Observer) or not isinstance(callbacks, Iterable):
            kind = observer.__name__ if isinstance(observer, type) else type(observer).__name__
            raise ConfigurationError(f"callbacks must be a list of Observers (seqssvae.training.state), not {kind}.")
    return observers
