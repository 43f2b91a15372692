"""Names, shapes and first values of all weights: the contract between the twins and the run directory.

The layout is PyTorch's (a matrix is `(outputs, inputs)`). Recurrent cells have one bias per gate, and GRU's `n` gate
a second one inside the reset product, because two biases that only ever add up would move twice as fast under Adam.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from seqssvae.config import EncoderKind, ModelConfig, ObjectiveConfig, OptimizerConfig

GATES = {"gru": 3, "lstm": 4}
"""Gates per cell, stacked in PyTorch's order: r, z, n for GRU and i, f, g, o for LSTM."""
STATES = {"gru": 1, "lstm": 2}
"""State vectors per cell: h for GRU, h and c for LSTM."""

Shape = tuple[int, ...]


def feature_size(model: ModelConfig) -> int:
    """F, the size of the features of a row that the encoder returns."""
    encoder = model.encoder
    recurrent = 0 if encoder.kind == "convolution" else source_feature_size(model)
    return recurrent + (0 if encoder.kind == "recurrent" else encoder.channels * len(encoder.widths))


def source_feature_size(model: ModelConfig) -> int:
    """The size of what a layer of the recurrent encoder returns, and of the features of a source."""
    return model.encoder.hidden_size * (2 if model.encoder.bidirectional else 1)


def _recurrent(prefix: str, model: ModelConfig, inputs: int, hidden: int) -> Iterator[tuple[str, Shape]]:
    gates = GATES[model.cell] * hidden
    yield f"{prefix}.weight_ih", (gates, inputs)
    yield f"{prefix}.weight_hh", (gates, hidden)
    yield f"{prefix}.bias", (gates,)
    if model.cell == "gru":
        yield f"{prefix}.bias_n", (hidden,)


def _tower(prefix: str, model: ModelConfig, vocabulary_size: int, kind: EncoderKind) -> Iterator[tuple[str, Shape]]:
    encoder = model.encoder
    directions = ("left_to_right", "right_to_left") if encoder.bidirectional else ("left_to_right",)
    yield f"{prefix}.embedding", (vocabulary_size, encoder.embedding_size)
    for layer in range(0 if kind == "convolution" else encoder.layers):
        inputs = encoder.embedding_size if layer == 0 else source_feature_size(model)
        for direction in directions:
            yield from _recurrent(f"{prefix}.layers.{layer}.{direction}", model, inputs, encoder.hidden_size)
    for width in () if kind == "recurrent" else encoder.widths:
        yield from _linear(f"{prefix}.convolutions.{width}", width * encoder.embedding_size, encoder.channels)


def _encoder(model: ModelConfig, vocabulary_size: int) -> Iterator[tuple[str, Shape]]:
    for tower in range(2 if model.encoder.separate else 1):
        yield from _tower(f"encoder.towers.{tower}", model, vocabulary_size, model.encoder.kind)


def _joint(prefix: str, inputs: int, label_count: int, outputs: int) -> Iterator[tuple[str, Shape]]:
    yield f"{prefix}.weight", (outputs, inputs)
    yield f"{prefix}.label_weight", (outputs, label_count)
    yield f"{prefix}.bias", (outputs,)


def _linear(prefix: str, inputs: int, outputs: int) -> Iterator[tuple[str, Shape]]:
    yield f"{prefix}.weight", (outputs, inputs)
    yield f"{prefix}.bias", (outputs,)


def _latent_encoder(prefix: str, model: ModelConfig, features: int, label_count: int) -> Iterator[tuple[str, Shape]]:
    hidden = model.encoder.hidden_size
    yield from _joint(f"{prefix}.hidden", features, label_count, hidden)
    yield from _linear(f"{prefix}.loc", hidden, model.latent_size)
    yield from _linear(f"{prefix}.scale", hidden, model.latent_size)


def _decoder(model: ModelConfig, vocabulary_size: int, label_count: int) -> Iterator[tuple[str, Shape]]:
    decoder, hidden = model.decoder, model.decoder.hidden_size
    state = STATES[model.cell] * decoder.layers * hidden
    if decoder.context != 0:
        yield "decoder.embedding", (vocabulary_size, decoder.embedding_size)
    if decoder.context:
        yield "decoder.context.weight", (hidden, decoder.context * decoder.embedding_size)
    if decoder.context is not None:
        yield "decoder.context.bias", (hidden,)
    for layer in range(decoder.layers if decoder.context is None else 0):
        yield from _recurrent(
            f"decoder.layers.{layer}", model, decoder.embedding_size if layer == 0 else hidden, hidden
        )
    if decoder.conditioning == "output":
        if decoder.context is None:
            yield "decoder.initial_state", (state,)
        yield from _joint("decoder.condition", model.latent_size, label_count, hidden)
        yield "decoder.projection.weight", (hidden, hidden)
        yield "decoder.label_bias", (vocabulary_size, label_count)
    else:
        yield from _joint("decoder.initial.hidden", model.latent_size, label_count, hidden)
        yield from _linear("decoder.initial.output", hidden, state)
    if decoder.conditioning == "every_step":
        yield "decoder.condition.weight", (GATES[model.cell] * hidden, model.latent_size)
        yield "decoder.condition.label_weight", (GATES[model.cell] * hidden, label_count)
    yield from _linear("decoder.output", hidden, vocabulary_size)


def _from_source(model: ModelConfig, label_count: int, source_vocabulary_size: int) -> Iterator[tuple[str, Shape]]:
    """What a model has in addition where there is a source."""
    features, decoder, hidden = source_feature_size(model), model.decoder, model.decoder.hidden_size
    yield from _tower("source_encoder.tower", model, source_vocabulary_size, "recurrent")
    yield from _linear("label_predictor", features, label_count)
    yield from _latent_encoder("latent_predictor", model, features, label_count)
    recurrent = decoder.conditioning == "output" and decoder.context is None
    states = STATES[model.cell] * decoder.layers * hidden if recurrent else hidden
    yield "decoder.source_state.weight", (states, features)
    if decoder.conditioning == "every_step":
        yield "decoder.source_condition.weight", (GATES[model.cell] * hidden, features)
    if decoder.attention:
        yield "decoder.attention.key.weight", (hidden, features)
        yield "decoder.attention.context.weight", (hidden, features)
        if decoder.conditioning != "output":  # which has a layer of its own there
            yield from _linear("decoder.attention.output", hidden, hidden)


def parameter_shapes(
    model: ModelConfig, vocabulary_size: int, label_count: int, source_vocabulary_size: int = 0
) -> dict[str, Shape]:
    """Name and shape of every weight, in the order in which `initial_weights` draws them.

    Args:
        model: The networks.
        vocabulary_size: V, special symbols included.
        label_count: K.
        source_vocabulary_size: V of the sources; 0 where there are none.

    Example:
        >>> shapes = parameter_shapes(ModelConfig(), vocabulary_size=24, label_count=2)
        >>> shapes["classifier.weight"]
        (2, 256)
    """
    features = feature_size(model) + (source_feature_size(model) if source_vocabulary_size else 0)
    shapes = dict(_encoder(model, vocabulary_size))
    shapes.update(_linear("classifier", features, label_count))
    shapes.update(_latent_encoder("latent_encoder", model, features, label_count))
    shapes.update(_decoder(model, vocabulary_size, label_count))
    if source_vocabulary_size:
        shapes.update(_from_source(model, label_count, source_vocabulary_size))
    return shapes


def _first_value(name: str, shape: Shape, generator: np.random.Generator) -> np.ndarray:
    if name.endswith(("bias", "bias_n", "initial_state")):  # label_bias too
        return np.zeros(shape)
    if name.endswith("embedding"):
        return generator.normal(0.0, 1.0, shape)
    if name.endswith("weight_hh"):  # each gate's block orthogonal (Saxe et al. 2014)
        blocks = [np.linalg.qr(generator.normal(size=(shape[1], shape[1]))) for _ in range(shape[0] // shape[1])]
        return np.concatenate([q * np.sign(np.diagonal(r)) for q, r in blocks])
    bound = float(np.sqrt(6.0 / sum(shape)))  # Glorot & Bengio 2010, equation 16
    return generator.uniform(-bound, bound, shape)


def initial_weights(
    model: ModelConfig,
    vocabulary_size: int,
    label_count: int,
    seed: int,
    precision: str = "float32",
    source_vocabulary_size: int = 0,
) -> dict[str, np.ndarray]:
    """The weights training starts from: a function of the seed alone, the same for both twins.

    Args:
        model: The networks.
        vocabulary_size: V.
        label_count: K.
        seed: Seed of the draw.
        precision: Floating-point type of the arrays.
        source_vocabulary_size: V of the sources; 0 where there are none.
    """
    generator = np.random.default_rng([seed, 0x5EED])
    shapes = parameter_shapes(model, vocabulary_size, label_count, source_vocabulary_size)
    return {name: _first_value(name, shape, generator).astype(precision) for name, shape in shapes.items()}


def check_weights(weights: Mapping[str, np.ndarray], expected: Mapping[str, Shape]) -> None:
    """Check names and shapes of weights that come from elsewhere.

    Args:
        weights: The weights.
        expected: The names and shapes that they must have.

    Raises:
        ValueError: Naming the first weight that is missing, unknown, or of another shape.
    """
    for name, shape in expected.items():
        if name not in weights:
            raise ValueError(f"the weight {name} is missing.")
        if tuple(weights[name].shape) != shape:
            raise ValueError(f"the weight {name} has shape {tuple(weights[name].shape)}, not {shape}.")
    for name in weights:
        if name not in expected:
            raise ValueError(f"the weight {name} is unknown to this configuration.")


def optimizer_shapes(optimizer: OptimizerConfig, weights: Mapping[str, Shape]) -> dict[str, Shape]:
    """Name and shape of every array of an optimiser's state: `step`, and moving averages per weight."""
    averages = ("momentum",) if optimizer.name == "sgd" else ("exp_avg", "exp_avg_sq")
    shapes: dict[str, Shape] = {"step": ()}
    shapes.update({f"{name}.{average}": shape for name, shape in weights.items() for average in averages})
    return shapes


def baseline_shapes(objective: ObjectiveConfig, vocabulary_size: int) -> dict[str, Shape]:
    """Name and shape of every array of what `score_function` has learned to expect; they go with the optimiser's state.

    `baseline.average` and `baseline.mass` are a decaying sum and the sum of its weights; `baseline.symbols` is what
    each occurrence of a symbol adds.
    """
    if objective.gradient_estimator != "score_function" or objective.baseline == "none":
        return {}
    shapes: dict[str, Shape] = {"baseline.average": (), "baseline.mass": ()}
    return {**shapes, "baseline.symbols": (vocabulary_size,)} if objective.baseline == "input" else shapes
