"""Weights of a trained model in one that knows further symbols or other labels."""

from collections.abc import Mapping

import numpy as np

from seqssvae.backend import Weights
from seqssvae.config import ModelConfig
from seqssvae.data.schema import Schema
from seqssvae.data.vocabulary import SPECIALS
from seqssvae.errors import ConfigurationError
from seqssvae.parameters import Shape, parameter_shapes

Names = tuple[str, ...]


def carry_weights(
    weights: Mapping[str, np.ndarray], known: Schema, schema: Schema, model: ModelConfig, first: Weights
) -> Weights:
    """Return the weights of a model in which all that a trained one knows of the same symbols and labels is as there.

    What belongs to a symbol or a label that the trained model does not know is as in a new model.

    Args:
        weights: Those of the trained model.
        known: Its symbols and labels.
        schema: Those of the new model.
        model: The networks, the same in both.
        first: The weights of the new model before it is trained.

    Raises:
        ConfigurationError: If the networks are not those of the trained model.
    """
    if (known.source_vocabulary is None) != (schema.source_vocabulary is None):
        there = "without" if known.source_vocabulary is None else "with"
        raise ConfigurationError(
            f"The model that training starts from was trained {there} sources, and so must this be."
        )
    check_networks(weights, known, model)
    return {name: _carry(weights[name], value, _names(name, known, schema, model)) for name, value in first.items()}


def carry_optimizer(
    state: Mapping[str, np.ndarray], known: Schema, schema: Schema, model: ModelConfig, first: Weights
) -> Weights:
    """Return the state of an optimiser; arguments are as of `carry_weights`, which must have come before."""
    carried = dict(first)
    for name, value in first.items():
        weight = name.rpartition(".")[0]
        if name in state and weight in parameter_shapes(model, *_sizes(schema)):
            carried[name] = _carry(state[name], value, _names(weight, known, schema, model))
        elif name in state and np.shape(state[name]) == np.shape(value):
            carried[name] = state[name]
    return carried


def check_networks(weights: Mapping[str, np.ndarray], known: Schema, model: ModelConfig) -> None:
    """Check that weights are those of networks of these sizes.

    Raises:
        ConfigurationError: If not.
    """
    shapes = parameter_shapes(model, *_sizes(known))
    for name in [*shapes, *weights]:
        here, there = shapes.get(name), tuple(weights[name].shape) if name in weights else None
        if here != there:
            raise ConfigurationError(
                f"The model that training starts from has other networks: its weight {name} has the shape {there}, and "
                f"that of model.* here has {here}; leave sizes and kinds of networks as they are there."
            )


def _sizes(schema: Schema) -> tuple[int, int, int]:
    vocabulary, prior, sources = schema.dimensions
    return vocabulary, len(prior), sources


def _names(weight: str, known: Schema, schema: Schema, model: ModelConfig) -> list[tuple[Names, Names] | None]:
    """For each axis of a weight what its entries stand for, there and here; None where it is the same in both."""
    sizes = _sizes(schema)
    shape = parameter_shapes(model, *sizes)[weight]
    pairs = [_symbols(known, schema), (known.labels.names, schema.labels.names), _source_symbols(known, schema)]
    axes: list[tuple[Names, Names] | None] = [None] * len(shape)
    for place, pair in enumerate(pairs):
        if not sizes[place]:
            continue
        larger = tuple(size + (other == place) for other, size in enumerate(sizes))
        grown: Shape = parameter_shapes(model, *larger)[weight]
        for axis, (before, after) in enumerate(zip(shape, grown, strict=True)):
            if before != after:
                axes[axis] = pair
    return axes


def _symbols(known: Schema, schema: Schema) -> tuple[Names, Names]:
    return (*SPECIALS, *known.vocabulary.symbols), (*SPECIALS, *schema.vocabulary.symbols)


def _source_symbols(known: Schema, schema: Schema) -> tuple[Names, Names]:
    before, after = known.source_vocabulary, schema.source_vocabulary
    return (*SPECIALS, *(before.symbols if before else ())), (*SPECIALS, *(after.symbols if after else ()))


def _carry(value: np.ndarray, first: np.ndarray, axes: list[tuple[Names, Names] | None]) -> np.ndarray:
    """The first value, with the entries of the trained one where both stand for the same."""
    here, there = [], []
    for axis, names in enumerate(axes):
        before, after = names or ((), ())
        places = {name: place for place, name in enumerate(before)}
        common = [(place, places[name]) for place, name in enumerate(after) if name in places]
        same = np.arange(first.shape[axis])
        here.append(np.array([one for one, _ in common], np.int64) if names else same)
        there.append(np.array([other for _, other in common], np.int64) if names else same)
    if not axes:
        return value
    carried = first.copy()
    carried[np.ix_(*here)] = value[np.ix_(*there)]
    return carried
