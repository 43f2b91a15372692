"""The validation loss is what a training step minimises on the same rows at beta 1, in both twins."""

import dataclasses

import pytest
from toy import toy_config, toy_table

from seqssvae.backend import GivenRows, get_backend
from seqssvae.data.batches import evaluation_batches
from seqssvae.data.prepare import prepare_table
from seqssvae.inference.evaluate import evaluate


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_classifier_s_validation_loss_is_what_it_minimises(name):
    config = toy_config()
    config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, name="classifier", alpha=7.0))
    prepared = prepare_table(toy_table(), config)
    backend = get_backend(name)(config, prepared.schema.dimensions)
    corpus = prepared.training.take((prepared.training.y >= 0).nonzero()[0])
    (batch,) = evaluation_batches(corpus, len(corpus), (int(corpus.lengths.max()),))
    minimised = backend.differentiate(GivenRows(batch, {}), None, 1.0).loss
    assert evaluate(backend, corpus, config).metrics.loss == pytest.approx(float(minimised), rel=1e-5)
