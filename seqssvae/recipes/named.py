"""Recipes by name: the fields of the configuration that each sets, and which a user's own fields override."""

from seqssvae.config.settings import Settings, merge
from seqssvae.errors import ConfigurationError
from seqssvae.recipes.names import RecipeName

_CONVOLUTION = {"kind": "convolution", "embedding_size": 32, "word_dropout": 0.3}
_SHORT_TRAINING = {"epochs": 1000, "buckets": 1, "evaluation_interval": 100, "patience": 0, "standard_errors": 1.0}
_FAST_OPTIMIZER = {"learning_rate": 1e-2, "schedule": "cosine", "clip_norm": 5.0}

RECIPES: dict[RecipeName, Settings] = {
    "auto": {
        "data": {"minimum_count": 2, "validation_fraction": 0.05},
        "model": {
            "latent_size": 16,
            "encoder": {**_CONVOLUTION, "word_dropout": 0.1},
            "decoder": {"embedding_size": 32, "hidden_size": 64, "conditioning": "output"},
            "dropout": 0.2,
        },
        "objective": {"posterior": "given", "beta": {"steps": 300}},
        "optimizer": _FAST_OPTIMIZER,
        "training": {**_SHORT_TRAINING, "buckets": 3, "metric": "elbo", "standard_errors": 0.0},
    },
    "ssvae": {},
    "topics": {
        "model": {
            "encoder": _CONVOLUTION,
            "decoder": {"conditioning": "output", "context": 1},
            "dropout": 0.3,
        },
        "objective": {"posterior": "exact", "beta": {"steps": 300}},
        "optimizer": _FAST_OPTIMIZER,
        "training": {**_SHORT_TRAINING, "max_steps": 600},
    },
    "classifier": {
        "model": {"encoder": _CONVOLUTION, "dropout": 0.5},
        "objective": {
            "name": "classifier",
            "consistency": {"weight": 2.0, "temperature": 0.5, "steps": 100, "aligned": True, "realigned": True},
        },
        "optimizer": _FAST_OPTIMIZER,
        "training": {**_SHORT_TRAINING, "max_steps": 300},
    },
    "labels": {
        "model": {"encoder": _CONVOLUTION, "dropout": 0.5},
        "objective": {"name": "classifier"},
        "optimizer": _FAST_OPTIMIZER,
        "training": {**_SHORT_TRAINING, "max_steps": 300},
    },
}
"""`auto` tries several candidates by cross-validation, averages those that are of use, and trains an SSVAE towards what
they say together. `ssvae` is the recurrent SSVAE with the fields' defaults. `topics` is for sequences that cluster by
label: the exact posterior, and a decoder that sees one symbol. `classifier` trains q(y|x) alone, with consistency on
rows without label; `labels` without such rows."""


def recipe_settings(name: str) -> Settings:
    """The fields that a recipe sets.

    Raises:
        ConfigurationError: If there is no such recipe.
    """
    for known, settings in RECIPES.items():
        if known == name:
            return settings
    raise ConfigurationError(f"recipe must be one of {', '.join(RECIPES)}, not {name!r}.")


def with_recipe(name: str, own: Settings) -> Settings:
    """The fields that a recipe sets, with somebody's own in place of them.

    Raises:
        ConfigurationError: If there is no such recipe.
    """
    settings, objective = merge(recipe_settings(name), own), own.get("objective") or {}
    enumerated = settings.get("objective", {}).get("gradient_estimator", "enumerate") == "enumerate"
    if not enumerated and "posterior" not in objective:  # which needs every label
        return merge(settings, {"objective": {"posterior": "amortised"}})
    return settings
