"""Evaluation, prediction, embedding and generation over whole corpora, against the same done row by row."""

import dataclasses
import math

import numpy as np
import pytest
from fake_backend import FakeBackend, log_softmax
from toy import toy_config, toy_table

from seqssvae.backend import NO_LABEL
from seqssvae.config import Config, DecodingOptions
from seqssvae.data.batches import evaluation_batches
from seqssvae.data.padding import pad
from seqssvae.data.prepare import Prepared, prepare_table
from seqssvae.errors import ConfigurationError
from seqssvae.inference.evaluate import encode, evaluate, predict_proba
from seqssvae.inference.generate import GENERATION_BATCH, generate
from seqssvae.noise import batch_seed


@pytest.fixture
def model() -> tuple[FakeBackend, Prepared, Config]:
    """A model with weights that tell labels and symbols apart."""
    config = toy_config()
    prepared = prepare_table(toy_table(), config)
    backend = FakeBackend(config, prepared.schema.dimensions)
    generator = np.random.default_rng(3)
    for name in ("classifier.bias", "decoder.label_bias", "decoder.output.bias"):
        backend.weights[name] = generator.normal(size=backend.shapes[name]).astype(np.float32)
    return backend, prepared, config


def row_by_row(backend: FakeBackend, prepared: Prepared) -> np.ndarray:
    """log q(y|x), each row in a batch of its own."""
    corpus = prepared.training
    batches = (pad(corpus, np.array([row]), 1, int(corpus.lengths[row])) for row in range(len(corpus)))
    return np.concatenate([backend.classify(batch.x) for batch in batches])


@pytest.mark.parametrize(("batch_size", "bucket_count"), [(1, 1), (5, 3), (64, 2)])
def test_rows_come_back_in_their_order_whatever_the_batches(model, batch_size, bucket_count):
    backend, prepared, config = model
    training = dataclasses.replace(config.training, batch_size=batch_size, buckets=bucket_count)
    config = dataclasses.replace(config, training=training)
    expected = row_by_row(backend, prepared)
    probabilities = predict_proba(backend, prepared.training, config)
    np.testing.assert_allclose(probabilities, np.exp(expected), rtol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    embedding = encode(backend, prepared.training, config)
    table = backend.weights["encoder.towers.0.embedding"]
    means = [table[sequence].mean(axis=0)[: config.model.latent_size] for sequence in prepared.training.sequences]
    np.testing.assert_allclose(embedding, means, rtol=1e-5)


def test_metrics_are_those_of_the_rows(model):
    backend, prepared, config = model
    evaluation = evaluate(backend, prepared.training, config, seed=1)
    corpus, log_q_y = prepared.training, row_by_row(backend, prepared)
    labelled = np.flatnonzero(corpus.y != NO_LABEL)
    predicted = log_q_y.argmax(axis=1)
    metrics = evaluation.metrics
    assert 0 < len(labelled) < len(corpus)
    assert (metrics.rows, metrics.labelled_rows) == (len(corpus), len(labelled))
    assert metrics.accuracy == pytest.approx(np.mean(predicted[labelled] == corpus.y[labelled]))
    assert metrics.classification == pytest.approx(-np.mean(log_q_y[labelled, corpus.y[labelled]]))
    prior = np.log([0.5, 0.5])
    assert metrics.kl_y == pytest.approx(np.mean(np.sum(np.exp(log_q_y) * (log_q_y - prior), axis=1)))
    logits = backend.weights["decoder.output.bias"].astype(float)
    logits[[0, 2]] = -np.inf
    log_p = log_softmax(logits)
    assert metrics.reconstruction == pytest.approx(np.mean([log_p[sequence].sum() for sequence in corpus.sequences]))
    assert metrics.elbo == pytest.approx(metrics.reconstruction - metrics.kl_z - metrics.kl_y)
    assert metrics.symbols == sum(map(len, corpus.sequences))
    assert metrics.bits_per_symbol == pytest.approx(-metrics.elbo * len(corpus) / metrics.symbols / math.log(2))
    assert metrics.loss == pytest.approx(-metrics.elbo + config.objective.alpha * metrics.classification)
    for label in range(2):
        for other in range(2):
            count = np.sum((corpus.y == label) & (predicted == other))
            assert evaluation.confusion[label, other] == count


def test_the_noise_is_the_seed_s_and_differs_between_batches_of_one_shape(model):
    backend, prepared, config = model
    seeds = []
    original = backend.evaluate
    backend.evaluate = lambda batch, seed: seeds.append(seed) or original(batch, seed)
    first, again, other = (evaluate(backend, prepared.training, config, seed=seed).metrics.kl_z for seed in (1, 1, 2))
    assert first == again != other
    per_call = len(seeds) // 3
    assert per_call > 2
    assert len(set(seeds)) == 2 * per_call


def test_batches_may_be_given_and_are_all_that_is_evaluated(model):
    backend, prepared, config = model
    corpus = prepared.training
    batches = list(evaluation_batches(corpus, 5, (4, 6, 10)))
    given = evaluate(backend, corpus, config, 1, batches=batches)
    own = evaluate(backend, corpus, config, 1)
    assert given.metrics.reconstruction == pytest.approx(own.metrics.reconstruction)
    assert given.metrics.kl_z != own.metrics.kl_z  # batches of other shapes have other noise
    expected = [backend.evaluate(batch, batch_seed(1, index)) for index, batch in enumerate(batches)]
    kl_z = sum(part.terms.kl_z[batch.row_mask].sum() for part, batch in zip(expected, batches, strict=True))
    assert given.metrics.kl_z == pytest.approx(kl_z / len(corpus))


def test_an_evaluation_has_the_standard_error_of_the_stopping_metric(model):
    backend, prepared, config = model
    evaluation = evaluate(backend, prepared.training, config)
    accuracy, labelled = evaluation.metrics.accuracy, evaluation.metrics.labelled_rows
    assert evaluation.standard_error == pytest.approx(math.sqrt(accuracy * (1 - accuracy) / labelled))


def test_seeds_of_batches_differ_and_fit_into_31_bits():
    seeds = [batch_seed(seed, *place) for seed in range(3) for place in [(0,), (1,), (0, 0), (0, 1), (1, 0)]]
    assert len(set(seeds)) == 9  # a further 0 at the end changes nothing
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert batch_seed(0, 1) == int(np.random.SeedSequence([0, 1]).generate_state(1)[0] >> 1)


def test_a_classifier_has_no_elbo(model):
    backend, prepared, config = model
    config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, name="classifier"))
    metrics = evaluate(backend, prepared.training, config).metrics
    assert metrics.elbo is metrics.kl_z is metrics.bits_per_symbol is None
    assert metrics.loss == metrics.classification


def test_rows_without_labels_have_no_accuracy(model):
    backend, prepared, config = model
    corpus = prepared.training.with_labels(np.full(len(prepared.training), NO_LABEL))
    evaluation = evaluate(backend, corpus, config)
    assert evaluation.metrics.accuracy is evaluation.metrics.classification is None
    assert evaluation.confusion.sum() == 0
    assert evaluation.metrics.elbo is not None


def test_generated_sequences_are_the_label_s_and_as_many_as_asked_for(model):
    backend, prepared, _ = model
    favour = np.zeros_like(backend.weights["decoder.label_bias"])
    favour[4, 0] = favour[5, 1] = 5.0
    backend.weights["decoder.label_bias"] = favour
    for label, symbol in ((0, "a"), (1, "b")):
        generated = generate(backend, prepared.schema.vocabulary, label, 7, DecodingOptions(6), seed=2)
        assert len(generated) == 7
        symbols = [one for sequence in generated for one in sequence.symbols]
        assert np.mean([one == symbol for one in symbols]) > 0.9
        assert all(len(sequence.symbols) <= 6 for sequence in generated)


def test_generation_goes_by_batches_that_do_not_repeat_each_other(model):
    backend, prepared, _ = model
    generated = generate(backend, prepared.schema.vocabulary, 0, GENERATION_BATCH + 5, DecodingOptions(4))
    assert len(generated) == GENERATION_BATCH + 5
    texts = ["".join(sequence.symbols) for sequence in generated]
    assert texts[:5] != texts[GENERATION_BATCH:]
    given = backend, prepared.schema.vocabulary, 0, len(generated), DecodingOptions(4)
    assert texts == ["".join(sequence.symbols) for sequence in generate(*given, seed=0)]
    assert texts != ["".join(sequence.symbols) for sequence in generate(*given, seed=1)]


def test_a_sequence_that_comes_to_no_end_is_marked(model):
    backend, prepared, _ = model
    bias = backend.weights["decoder.output.bias"]
    bias[3] = -50.0
    assert not any(one.ended for one in generate(backend, prepared.schema.vocabulary, 0, 3, DecodingOptions(4)))
    bias[3] = 50.0
    (ended,) = generate(backend, prepared.schema.vocabulary, 0, 1, DecodingOptions(4))
    assert (ended.symbols, ended.ended) == ([], True)
    assert ended.log_p == pytest.approx(0, abs=1e-6)


def test_options_and_the_seed_reach_the_backend(model):
    backend, prepared, _ = model
    asked = []
    original = backend.generate
    backend.generate = lambda *args, **kwargs: asked.append(args[1:]) or original(*args, **kwargs)
    options = DecodingOptions(4, "beam", beam_width=3), DecodingOptions(4, temperature=2, top_p=0.5, allow_unknown=True)
    for one in options:
        generate(backend, prepared.schema.vocabulary, 0, 1, one, seed=7)
    assert asked == [(one, batch_seed(7, 0)) for one in options]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "best"}, "method must be one of sample, greedy, beam, not 'best'"),
        ({"allow_unknown": 1}, "allow_unknown must be true or false, not 1"),
        ({"max_length": 0}, "max_length must be a whole number of at least 1 and at most 100000, not 0"),
        ({"beam_width": 1001}, "beam_width must be a whole number of at least 1 and at most 1000, not 1001"),
        ({"temperature": 0}, "temperature must be a number above 0, not 0"),
        ({"temperature": float("inf")}, "temperature must be a number above 0, not inf"),
        ({"temperature": float("nan")}, "temperature must be a number above 0, not nan"),
        ({"top_p": 0.0}, "top_p must be a number above 0 and at most 1, not 0.0"),
        ({"top_p": 1.5}, "top_p must be a number above 0 and at most 1, not 1.5"),
        ({"method": "greedy", "temperature": 0.5}, "temperature is for the method sample alone; leave it out with gr"),
        ({"method": "beam", "top_p": 0.5}, "top_p is for the method sample alone; leave it out with beam"),
    ],
)
def test_wrong_decoding_options_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        DecodingOptions(**options)
