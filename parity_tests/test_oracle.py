"""The oracle's objective and its terms, against formulas worked out by hand and against each other."""

import dataclasses
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import entropy

from parity_tests.fixtures import load_problems
from parity_tests.networks import Source
from parity_tests.oracle import Oracle
from parity_tests.oracle_rows import Rows
from parity_tests.problems import VOCABULARY_SIZE, Options, Problem, make_problem
from seqssvae.config import ConsistencyConfig
from seqssvae.data.vocabulary import END, PAD, SPECIALS, UNK

PROBLEMS = load_problems()
UNLABELLED = [problem for problem in PROBLEMS if problem.unlabelled]
ALIGNED = ConsistencyConfig(temperature=1.0, aligned=True)
LABELLED = [problem for problem in PROBLEMS if problem.labelled]
CELLS_AND_CONDITIONINGS = list(product(("gru", "lstm"), ("init", "every_step", "output")))


def _name(problem: Problem) -> str:
    return problem.name


def _zeros(problem: Problem, **others: np.ndarray) -> dict[str, np.ndarray]:
    return {name: others.get(name, np.zeros_like(value)) for name, value in problem.weights.items()}


def _label_elbos(problem: Problem) -> np.ndarray:
    """L of every label and row, as if the label were observed."""
    rows, elbos = problem.unlabelled.rows(), []
    for k in range(problem.options.label_count):
        of_label = rows._replace(y=np.full(len(rows.x), k), noise={**rows.noise, "z": rows.noise["z"][k]})
        elbos.append(problem.oracle().labelled_terms(of_label, problem.beta).elbo)
    return np.array(elbos)


def _unlabelled_elbos(problem: Problem) -> np.ndarray:
    """What the objective has of each row without a label, minus the term of distillation where there is one."""
    step, objective = problem.unlabelled, problem.config.objective
    elbos, rows, real = _label_elbos(problem), step.rows(), step.batch.row_mask
    log_q = problem.oracle().log_q_y(rows.x, rows.noise, rows.source)
    if objective.posterior == "exact" and objective.posterior_temperature == 1:
        r, bounds = softmax(elbos.T, axis=1), logsumexp(elbos, axis=0)
    else:
        temperature = np.sqrt(np.maximum((rows.x != PAD).sum(1), 1))
        r = {"amortised": np.exp(log_q), "given": rows.posterior}.get(
            objective.posterior, softmax(elbos.T / temperature[:, None], axis=1)
        )
        bounds = (r.T * elbos).sum(0) + entropy(r, axis=1)
    weight = 0.0 if objective.posterior == "amortised" else objective.distillation
    return np.where(real, bounds + weight * (r * log_q).sum(1), 0.0)


@pytest.mark.parametrize("problem", UNLABELLED, ids=_name)
def test_unlabelled_elbo_is_the_average_of_the_labelled_ones_plus_the_entropy(problem: Problem) -> None:
    rows, beta, labels = problem.unlabelled.rows(), problem.beta, range(problem.options.label_count)
    oracle, labelled = problem.oracle(), _label_elbos(problem)
    q_y = np.exp(oracle.log_q_y(rows.x, rows.noise, rows.source))
    entropy = -(q_y * np.log(q_y)).sum(1)
    expected = sum(q_y[:, k] * labelled[k] for k in labels) + entropy
    real = problem.unlabelled.batch.row_mask
    np.testing.assert_allclose(oracle.unlabelled_terms(rows, beta).elbo, np.where(real, expected, 0.0), rtol=1e-12)


@pytest.mark.parametrize("problem", PROBLEMS, ids=_name)
def test_terms_are_taken_at_the_drawn_z(problem: Problem) -> None:
    """log p(x|y,z) and the ratio of the densities at z = loc + scale * epsilon, without dropout."""
    oracle = problem.oracle()
    for step in problem.steps():
        rows = step.rows(training=False)
        loc, scale = oracle.posterior(rows.x, source=rows.source)
        encoded = [oracle.source(rows.source, None, b) for b in range(len(rows.x))]
        for k in range(problem.options.label_count):
            y = np.full(len(rows.x), k)
            epsilon = rows.noise["z"] if step is problem.labelled else rows.noise["z"][k]
            z = loc[k] + scale[k] * epsilon
            terms = oracle.labelled_terms(Rows(rows.x, y, {"z": epsilon}, rows.source), 1.0)
            np.testing.assert_allclose(terms.reconstruction, oracle.log_prob(rows.x, y, z, rows.source), rtol=1e-12)
            centre, spread, log_p_y = 0.0, 1.0, math.log(problem.dimensions.label_prior[k])
            if rows.source is not None:
                priors = [oracle.networks.latent_predictor(of_row, k) for of_row in encoded]
                centre, spread = (np.array(part) for part in zip(*priors, strict=True))
                log_p_y = oracle.log_p_y(rows.source)[:, k]
            log_ratio = 0.5 * ((z - centre) / spread) ** 2 + np.log(spread) - 0.5 * epsilon**2 - np.log(scale[k])
            real = step.batch.row_mask
            np.testing.assert_allclose(terms.kl_z, np.where(real, log_ratio.sum(1), 0.0), rtol=1e-11, atol=1e-13)
            np.testing.assert_allclose(terms.kl_y, np.where(real, -log_p_y, 0.0), rtol=1e-13)


@pytest.mark.parametrize("problem", PROBLEMS, ids=_name)
def test_objective_weighs_rows_and_terms(problem: Problem) -> None:
    elbos, losses_of_rows = [], []
    if problem.labelled:
        terms = problem.oracle().labelled_terms(problem.labelled.rows(), problem.beta)
        elbos += list(terms.reconstruction - problem.beta * terms.kl_z - terms.kl_y)
        losses_of_rows += list(terms.classification[problem.labelled.batch.row_mask])
    if problem.unlabelled:
        elbos += list(_unlabelled_elbos(problem))
    real_rows = sum(int(step.batch.row_mask.sum()) for step in problem.steps())
    classification = np.mean(losses_of_rows) if losses_of_rows else 0.0
    expected = -sum(elbos) / real_rows + problem.alpha * classification + _consistency(problem)
    if problem.options.name == "classifier":
        expected = classification + _consistency(problem)
    np.testing.assert_allclose(problem.objective(), expected, rtol=1e-12)


def test_classification_alone_has_weight_one() -> None:
    problem = make_problem(Options(kind="mixed", filler=True), seed=5)
    labelled, unlabelled = problem.labelled.rows(), problem.unlabelled.rows()
    loss = problem.oracle().objective(labelled, unlabelled, alpha=7.0, beta=1.0, generative=False)
    log_q_y = problem.oracle().log_q_y(labelled.x, labelled.noise)
    np.testing.assert_allclose(loss, -(log_q_y[0, labelled.y[0]] + log_q_y[1, labelled.y[1]]) / 2, rtol=1e-12)


@pytest.mark.parametrize(("cell", "conditioning"), CELLS_AND_CONDITIONINGS)
def test_terms_of_zero_weights(cell: str, conditioning: str) -> None:
    """Everything is uniform: each symbol has probability 1 / (V - 2), q(y|x) = 1/K, loc 0, scale log 2 + 1e-4."""
    problem = make_problem(Options(cell=cell, conditioning=conditioning, prior="uniform", label_count=4), seed=1)
    oracle, rows = problem.oracle(_zeros(problem)), problem.unlabelled.rows()
    terms = oracle.unlabelled_terms(rows, beta=0.3)
    lengths = (rows.x != PAD).sum(1)
    reconstruction = -lengths * math.log(VOCABULARY_SIZE - 2)
    np.testing.assert_allclose(terms.reconstruction, reconstruction, rtol=1e-13)
    np.testing.assert_allclose(terms.kl_y, 0.0, atol=1e-15)
    scale, epsilon = math.log(2.0) + 1e-4, rows.noise["z"]
    log_ratio = (-math.log(scale) - epsilon**2 / 2 + (scale * epsilon) ** 2 / 2).sum(2)
    kl_z = np.where(lengths > 0, log_ratio.mean(0), 0.0)
    np.testing.assert_allclose(terms.kl_z, kl_z, rtol=1e-12)
    np.testing.assert_allclose(terms.label_kl_z, np.where(lengths > 0, log_ratio, 0.0), rtol=1e-12)
    np.testing.assert_allclose(terms.elbo, reconstruction - 0.3 * kl_z, rtol=1e-12)

    rows = problem.labelled.rows()
    terms = oracle.labelled_terms(rows, beta=0.3)
    real = problem.labelled.batch.row_mask
    np.testing.assert_allclose(terms.kl_y, np.where(real, math.log(4), 0.0), rtol=1e-13)
    np.testing.assert_allclose(terms.classification, np.where(real, math.log(4), 0.0), rtol=1e-13)


def test_kl_of_y_by_hand() -> None:
    """q = (3/4, 1/4) from the classifier's bias, p = (1/3, 2/3)."""
    problem = make_problem(Options(label_count=2, filler=False), seed=2)
    weights = _zeros(problem, **{"classifier.bias": np.log([3.0, 1.0])})
    oracle = Oracle(problem.config.model, weights, label_prior=(1 / 3, 2 / 3))
    kl_y = oracle.unlabelled_terms(problem.unlabelled.rows(), 1.0).kl_y
    np.testing.assert_allclose(kl_y, 0.75 * math.log(9 / 4) + 0.25 * math.log(3 / 8), rtol=1e-13)
    labelled = problem.labelled.rows()._replace(y=np.array([0, 1, 1], dtype=np.int32))
    terms = oracle.labelled_terms(labelled, 1.0)
    np.testing.assert_allclose(terms.kl_y, np.log([3.0, 1.5, 1.5]), rtol=1e-13)
    np.testing.assert_allclose(terms.classification, np.log([4 / 3, 4.0, 4.0]), rtol=1e-13)


def test_log_prob_of_a_unigram_model_by_hand() -> None:
    """Only the output bias is not zero: p(symbol) = exp(bias) / sum, PAD and START not among the summands."""
    problem = make_problem(Options(conditioning="every_step"), seed=3)
    bias = np.log([100.0, 1.0, 100.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    x = np.array([[4, 8, END, PAD], [UNK, END, PAD, PAD], [END, PAD, PAD, PAD]], dtype=np.int32)
    oracle = problem.oracle(_zeros(problem, **{"decoder.output.bias": bias}))
    log_p = oracle.log_prob(x, np.zeros(3, dtype=np.int32), np.ones((3, 2)))
    np.testing.assert_allclose(log_p, np.log([3 * 7 * 2 / 28**3, 1 * 2 / 28**2, 2 / 28]), rtol=1e-13)


@pytest.mark.parametrize(("cell", "conditioning"), CELLS_AND_CONDITIONINGS)
def test_probabilities_of_all_sequences_sum_to_one(cell: str, conditioning: str) -> None:
    """Those of up to 2 symbols, END not counted, and all beginnings of 3 symbols, for the longer ones."""
    problem = make_problem(Options(cell=cell, conditioning=conditioning, decoder_layers=2), seed=4)
    forbidden = (0, 2, 6, 7, 8)  # PAD, START, and symbols that a host might reserve: 4 remain
    oracle = dataclasses.replace(problem.oracle(), never_generated=forbidden)
    symbols = (UNK, 4, 5)
    whole = [(*row, END) for length in range(3) for row in product(symbols, repeat=length)]
    begun = list(product(symbols, repeat=3))
    x = np.array([row + (PAD,) * (3 - len(row)) for row in whole + begun], dtype=np.int32)
    assert len(x) == 1 + 3 + 9 + 27
    z = np.tile([0.5, -1.0], (len(x), 1))
    log_prob = oracle.log_prob(x, np.ones(len(x), dtype=np.int32), z)
    np.testing.assert_allclose(np.exp(log_prob).sum(), 1.0, rtol=1e-13)
    assert np.exp(log_prob[len(whole) :]).sum() > 0.01  # the longer ones matter


def test_elbo_is_a_bound_of_log_p_x_and_tight_at_the_posterior() -> None:
    """With K = 2 and Z = 2, log p(x) and E_q[...] are integrals over a grid of nodes (Gauss and Hermite)."""
    problem = make_problem(Options(kind="unlabelled", label_count=2, filler=False), seed=6)
    oracle, x = problem.oracle(), problem.unlabelled.batch.x[:1]
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(12)
    grid = np.array(list(product(nodes, repeat=2)))
    grid_weights = np.outer(node_weights, node_weights).ravel() / (2 * math.pi)

    def elbo(of: Oracle) -> float:
        terms = [of.unlabelled_terms(Rows(x, None, {"z": np.tile(epsilon, (2, 1, 1))}), 1.0) for epsilon in grid]
        return sum(w * float(term.elbo[0]) for w, term in zip(grid_weights, terms, strict=True))

    def log_p_x(of: Oracle) -> float:
        many = np.tile(x, (len(grid), 1))
        each = [np.exp(of.log_prob(many, np.full(len(grid), k), grid)) @ grid_weights for k in range(2)]
        return math.log(float(np.dot(of.label_prior, each)))

    assert elbo(oracle) < log_p_x(oracle) - 0.1

    silent = dict(problem.weights)  # the decoder does not hear y and z, so the posterior is the prior
    for name in ("decoder.condition.weight", "decoder.condition.label_weight", "decoder.label_bias"):
        silent[name] = np.zeros_like(silent[name])
    silent["classifier.weight"] = np.zeros_like(silent["classifier.weight"])
    silent["classifier.bias"] = np.log(problem.dimensions.label_prior)
    for head in ("loc", "scale"):
        silent[f"latent_encoder.{head}.weight"] = np.zeros_like(silent[f"latent_encoder.{head}.weight"])
    silent["latent_encoder.loc.bias"] = np.zeros(2)
    silent["latent_encoder.scale.bias"] = np.full(2, math.log(math.expm1(1.0 - 1e-4)))
    np.testing.assert_allclose(elbo(problem.oracle(silent)), log_p_x(problem.oracle(silent)), rtol=1e-12)


def _consistency(problem: Problem) -> float:
    """The consistency term, from log q(y|x) of all rows."""
    weight, step = problem.options.consistency, problem.unlabelled
    if not weight or step is None:
        return 0.0
    rows, oracle = step.rows(), problem.oracle()
    clear, noisy = oracle.log_q_y(rows.x, None, rows.source), oracle.log_q_y(rows.x, rows.noise, rows.source)
    shift, real = problem.config.objective.consistency.label_shift or 0.0, step.batch.row_mask
    clear, noisy = log_softmax(clear + shift, axis=1), log_softmax(noisy + shift, axis=1)
    one_more = _mean_prior(problem, rows, shift)
    if problem.options.aligned:
        clear = clear + np.log(one_more / (np.exp(clear[real]).sum(0) + one_more))
    wanted = softmax(clear / problem.config.objective.consistency.temperature, axis=1)
    if problem.options.realigned:
        wanted = wanted * one_more / (wanted[real].sum(0) + one_more)
        wanted = wanted / wanted.sum(1, keepdims=True)
    return weight * float(-(wanted * noisy).sum(1)[step.batch.row_mask].mean())


def _mean_prior(problem: Problem, rows: Rows, shift: Any) -> np.ndarray:
    if rows.source is None:
        return softmax(np.log(problem.dimensions.label_prior) + shift)
    return softmax(problem.oracle().log_p_y(rows.source) + shift, axis=1)[problem.unlabelled.batch.row_mask].mean(0)


def test_what_many_equal_rows_are_to_be_like_if_aligned_is_the_prior() -> None:
    problem = make_problem(Options(kind="unlabelled", consistency=1.0, aligned=True, filler=False), seed=3)
    rows, oracle, count = problem.unlabelled.rows(training=False), problem.oracle(), 2000
    equal = rows._replace(x=np.repeat(rows.x[:1], count, 0), noise={"z": np.repeat(rows.noise["z"][:, :1], count, 1)})
    log_q, prior = oracle.log_q_y(rows.x[:1])[0], np.array(problem.dimensions.label_prior)
    assert np.abs(np.exp(log_q) - prior).max() > 0.1
    np.testing.assert_allclose(oracle.inconsistency(equal, ALIGNED), -(prior * log_q).sum(), rtol=2e-3)
    one_more = np.exp(log_q) * prior / (np.exp(log_q) + prior)
    (loss,) = oracle.inconsistency(equal._replace(x=equal.x[:1], noise={}), ALIGNED)
    assert loss == pytest.approx(-(one_more * log_q).sum() / one_more.sum(), rel=1e-12)


def test_with_a_shift_the_aligned_shares_are_those_of_the_shifted_prior() -> None:
    problem = make_problem(Options(kind="unlabelled", prior="uniform", filler=False), seed=3)
    rows, oracle, count = problem.unlabelled.rows(training=False), problem.oracle(), 2000
    equal = rows._replace(x=np.repeat(rows.x[:1], count, 0), noise={"z": np.repeat(rows.noise["z"][:, :1], count, 1)})
    shift = (0.5, -1.0, 0.0)
    term = ConsistencyConfig(temperature=0.3, aligned=True, realigned=True, label_shift=shift)
    log_q = log_softmax(oracle.log_q_y(rows.x[:1])[0] + shift)
    np.testing.assert_allclose(oracle.inconsistency(equal, term), -(softmax(shift) * log_q).sum(), rtol=2e-3)


def test_without_noise_consistency_is_an_entropy_and_sharpened_the_surprise_at_the_likeliest_label() -> None:
    problem = make_problem(Options(kind="unlabelled", consistency=1.0, filler=False), seed=3)
    rows, oracle = problem.unlabelled.rows(), problem.oracle()
    log_q = oracle.log_q_y(rows.x)
    for temperature, expected in ((1.0, entropy(np.exp(log_q), axis=1)), (1e-3, -log_q.max(1))):
        losses = oracle.inconsistency(rows, ConsistencyConfig(temperature=temperature))
        np.testing.assert_allclose(losses, expected, rtol=1e-6)


def test_symbols_hidden_from_the_encoder_are_unknown_to_it_alone() -> None:
    problem = make_problem(Options(kind="unlabelled", encoder_word_dropout=0.5, separate=True), seed=4)
    rows, oracle = problem.unlabelled.rows(), problem.oracle()
    hidden = ~rows.noise["encoder.word_dropout"]
    assert (hidden & (rows.x == END)).any()
    assert (hidden & (rows.x == PAD)).any()
    written = np.where(hidden & (rows.x >= len(SPECIALS)), UNK, rows.x)
    assert (written != rows.x).any()
    without = {name: value for name, value in rows.noise.items() if name != "encoder.word_dropout"}
    for ours, theirs in zip(oracle.features(rows.x, rows.noise), oracle.features(written, without), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    z = rows.noise["z"]
    of_decoder = [oracle.step_log_probabilities(rows.x, z, noise) for noise in (rows.noise, without)]
    np.testing.assert_array_equal(*of_decoder)


def test_attention_by_hand() -> None:
    """Two states fit as 1 to 3, so that their mean is (s_0 + 3 s_1) / 4; what is read is added before the tanh."""
    problem = make_problem(Options(source=True, conditioning="init"), seed=8)
    networks, hidden = problem.oracle().networks, np.zeros(5)
    key, states = problem.weights["decoder.attention.key.weight"], [np.full(8, 0.5), np.arange(8.0) / 8]
    source = Source(np.zeros(8), states)
    fit = (key @ states[1]) - (key @ states[0])
    hidden = math.log(3.0) * fit / (fit @ fit)
    read = problem.weights["decoder.attention.context.weight"] @ (states[0] + 3 * states[1]) / 4
    combined = np.tanh(networks._affine("decoder.attention.output", hidden) + read)
    expected = networks._affine("decoder.output", combined)
    np.testing.assert_allclose(networks._output(hidden, 0, np.zeros(2), source), expected, rtol=1e-12)


def test_p_of_y_given_a_source_by_hand() -> None:
    """The prior (1/3, 2/3), and log 4 in favour of the first from the source: (2/3, 1/3)."""
    problem = make_problem(Options(source=True, label_count=2), seed=9)
    weights = _zeros(problem, **{"label_predictor.bias": np.log([4.0, 1.0])})
    oracle = Oracle(problem.config.model, weights, label_prior=(1 / 3, 2 / 3))
    np.testing.assert_allclose(np.exp(oracle.log_p_y(problem.labelled.batch.source[:1])), [[2 / 3, 1 / 3]], rtol=1e-13)


def test_labelled_terms_without_labels_are_refused() -> None:
    problem = make_problem(Options(), seed=7)
    with pytest.raises(ValueError, match="needs the labels y"):
        problem.oracle().labelled_terms(problem.unlabelled.rows(), 1.0)
