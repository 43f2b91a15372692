"""What is said of a trained model: figures against independent ones, and planted faults called by name."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.integrate
from fake_backend import FakeBackend
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from toy import toy_config, toy_table

from seqssvae.backend import NO_LABEL, Latents
from seqssvae.data.corpus import Corpus
from seqssvae.data.prepare import prepare_table
from seqssvae.diagnosis import findings
from seqssvae.diagnosis.diagnose import Diagnosed, diagnose
from seqssvae.diagnosis.findings import Compared, CrossValidated
from seqssvae.diagnosis.label_use import LabelSeparation, LabelUse, label_separation, label_use
from seqssvae.diagnosis.latents import latent_use
from seqssvae.diagnosis.rows import look_at_rows
from seqssvae.inference.agreement import Agreement, agreement
from seqssvae.recipes.trained_on import TrainedOn


def normal(z, loc, scale):
    return np.exp(-0.5 * ((z - loc) / scale) ** 2) / scale / np.sqrt(2 * np.pi)


def latents(loc, scale):
    """q(z|x,y) of these parameters, and p(z) = N(0, I)."""
    loc, scale = np.broadcast_arrays(np.asarray(loc, float), np.asarray(scale, float))
    return Latents(loc, scale, np.zeros_like(loc), np.ones_like(loc))


def even(rows, labels):
    """log q(y|x) where each label is as probable."""
    return np.full((rows, labels), -np.log(labels))


def test_mutual_information_is_that_of_integrals():
    """Forty rows of a one-dimensional z whose q(z|x) is a mixture over two labels."""
    generator = np.random.default_rng(0)
    loc = np.repeat(generator.normal(size=(40, 2, 1)), 100, axis=0)  # each row many times: draws average out
    scale = np.repeat(generator.uniform(0.2, 0.6, size=(40, 2, 1)), 100, axis=0)
    q_y = np.repeat(generator.dirichlet([1.0, 1.0], size=40), 100, axis=0)

    def of_row(z, row):
        return np.sum(q_y[row] * normal(z, loc[row, :, 0], scale[row, :, 0]))

    def mixture(z):
        return np.mean([of_row(z, row) for row in range(0, 4000, 100)])

    def entropy(density):
        return scipy.integrate.quad(lambda z: -density(z) * np.log(max(density(z), 1e-300)), -6, 6, limit=200)[0]

    exact = entropy(mixture) - np.mean([entropy(lambda z, row=row: of_row(z, row)) for row in range(0, 4000, 100)])
    latent = latent_use(latents(loc, scale), np.log(q_y), seed=1)
    assert latent.mutual_information == pytest.approx(exact, abs=0.05)
    assert exact > 0.5


def test_kl_and_activity_of_units_by_hand():
    """The first unit is p(z); the second has another mean in each row, the third another scale in all."""
    loc = np.zeros((4, 2, 3))
    loc[:, :, 1] = np.array([-1.0, 1.0, -1.0, 1.0])[:, None]
    scale = np.ones((4, 2, 3))
    scale[:, :, 2] = 0.5
    latent = latent_use(latents(loc, scale), even(4, 2), seed=0)
    np.testing.assert_allclose(latent.unit_kl, [0.0, 0.5, 0.5 * (0.25 - 1) - np.log(0.5)], atol=1e-12)
    np.testing.assert_allclose(latent.unit_variance, [0.0, 1.0, 0.0], atol=1e-12)
    assert latent.active.tolist() == [False, True, False]
    assert latent.kl == pytest.approx(latent.unit_kl.sum())


def test_what_every_row_has_tells_nothing_of_it():
    latent = latent_use(latents(np.full((50, 2, 2), 3.0), 0.1), even(50, 2), seed=0)
    assert latent.mutual_information == pytest.approx(0.0, abs=1e-9)
    assert not latent.active.any()
    assert latent.kl > 1
    told_apart = latent_use(
        latents(10.0 * np.arange(50).repeat(2).reshape(50, 2, 1), 0.1), np.zeros((50, 2)) - np.log(2), 0
    )
    assert told_apart.mutual_information == pytest.approx(np.log(50))


def test_units_of_a_model_with_sources_are_those_that_differ_from_its_own_prior():
    loc = np.random.default_rng(0).normal(size=(30, 2, 2))
    as_prior = Latents(loc, np.full_like(loc, 0.3), loc, np.full_like(loc, 0.3))
    latent = latent_use(as_prior, even(30, 2), seed=0, has_source=True)
    assert latent.mutual_information is None
    assert not latent.active.any()
    assert latent.kl == pytest.approx(0.0)


def test_separation_by_hand():
    log_likelihood = np.array([[-1.0, -3.0, -5.0], [-4.0, -2.0, -3.0], [0.0, 0.0, 6.0]])
    separation = label_separation(log_likelihood, np.array([0, 1, NO_LABEL]))
    np.testing.assert_allclose(separation.by_label, [3.0, 1.5, np.nan])
    assert separation.rows.tolist() == [1, 1, 0]
    assert separation.spread == pytest.approx((4 + 2 + 6) / 3)


def test_use_of_labels_by_hand():
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    use = label_use(np.log(p), np.array([0, 1, 1, NO_LABEL]), np.array([0.5, 0.5]))
    assert (use.predicted.tolist(), use.observed.tolist(), use.hits.tolist()) == ([3, 1], [1, 2], [1, 1])
    assert use.accuracy == pytest.approx(2 / 3)
    np.testing.assert_allclose(use.probability, [0.6, 0.4])


def use(predicted, observed, hits, prior=None):
    count = len(predicted)
    shares = np.full(count, 1 / count) if prior is None else np.array(prior)
    return LabelUse(
        np.array(predicted), np.array(observed), np.array(hits), np.array(predicted) / max(sum(predicted), 1), shares
    )


NAMES = ("left", "right", "up")
NO_AGREEMENT, MUCH = Agreement(200, 0.01, 0.05), Agreement(200, 0.7, 0.05)
FEW = Agreement(20, 0.3, 0.2)
GUESSED, TOLD = (CrossValidated("logistic regression on n-grams", one) for one in (NO_AGREEMENT, MUCH))
NONE = use([0, 0, 0], [0, 0, 0], [0, 0, 0])
POOR, GOOD = use([34, 33, 33], [34, 33, 33], [20, 18, 20]), use([34, 33, 33], [34, 33, 33], [30, 29, 30])
DEAD, ALIVE = (
    latent_use(latents(loc, 0.9), even(30, 3), 0) for loc in (np.zeros((30, 3, 2)), np.arange(180.0).reshape(30, 3, 2))
)
COUNTED = {"unigram": Compared(-2.9, 1.0, 0.1), "bigram": Compared(-3.1, -1.0, 0.1)}


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("decoder ignores y", findings.ignored_label(LabelSeparation(0.01, np.zeros(3), np.ones(3, int)))),
        ("z is dead", findings.dead_latent(DEAD._replace(unit_kl=np.array([0.0, 0.05])), 100.0, True)),
        ("one label swallows all", findings.swallowing_label(use([97, 2, 1], [34, 33, 33], [34, 2, 1]), NONE, NAMES)),
        (
            "labels never predicted",
            findings.labels_never_predicted(*[use([50, 50, 0], [40, 30, 30], [35, 28, 0])] * 2, NAMES),
        ),
        ("labels without rows", findings.labels_without_rows([5, 0, 5], NAMES)),
        ("labels look random", findings.random_labels(NO_AGREEMENT, GUESSED)),
        ("labels look random", findings.random_labels(NO_AGREEMENT, CrossValidated("recipe auto", FEW))),
        ("labels look random", findings.random_labels(Agreement(0, float("nan"), float("nan")), GUESSED)),
        ("nothing learned of the labels", findings.random_labels(NO_AGREEMENT, TOLD)),
        ("classifier memorised", findings.memorised(POOR, use([20, 20, 20], [20, 20, 20], [20, 20, 20]), None)),
        ("classifier memorised", findings.memorised(POOR, NONE, 0.01)),
        ("overconfident", findings.miscalibrated(0.97, use([34, 33, 33], [34, 33, 33], [27, 26, 27]), 0.17)),
        ("underconfident", findings.miscalibrated(0.6, use([34, 33, 33], [34, 33, 33], [31, 32, 31]), 0.3)),
        ("generator is weak", findings.weak_generator(-3.0, 100, COUNTED)),
        ("unlabelled rows help", findings.unlabelled_rows((0.08, 0.02))),
        ("unlabelled rows hurt", findings.unlabelled_rows((-0.08, 0.02))),
    ],
)
def test_faults_are_called_by_name(name, finding):
    assert finding.name == name
    assert finding.sentence.endswith(".")
    assert finding.level == ("note" if name.endswith("help") else "warning")
    assert finding.advice or finding.level == "note"


@pytest.mark.parametrize(
    "finding",
    [
        findings.ignored_label(LabelSeparation(1.0, np.zeros(3), np.ones(3, int))),
        findings.dead_latent(ALIVE, 100.0, False),
        findings.dead_latent(DEAD._replace(rows=1), 1.0, False),  # of one row no unit varies
        findings.swallowing_label(use([90, 6, 4], [90, 5, 5], [88, 4, 3]), NONE, NAMES),  # most rows are of that label
        findings.swallowing_label(use([4, 1, 1], [2, 2, 2], [2, 1, 1]), NONE, NAMES),  # six rows may be chance
        # the rows without label may be of the label that is predicted; those with one are told apart
        findings.swallowing_label(
            use([10, 10, 10], [10, 10, 10], [9, 9, 9]), use([500, 20, 10], [10, 10, 10], [9, 9, 9]), NAMES
        ),
        findings.labels_never_predicted(*[use([50, 50, 0], [50, 48, 2], [45, 42, 0])] * 2, NAMES),  # may be chance
        findings.labels_without_rows([0, 0, 0], NAMES),  # a run without any label is no news
        findings.random_labels(MUCH, GUESSED),
        findings.random_labels(NO_AGREEMENT, None),
        findings.random_labels(FEW, GUESSED._replace(agreement=FEW)),  # twenty rows cannot tell
        findings.random_labels(FEW, TOLD),
        findings.memorised(GOOD, use([20, 20, 20], [20, 20, 20], [20, 20, 20]), None),
        findings.memorised(use([4, 3, 3], [4, 3, 3], [2, 2, 2]), use([20, 20, 20], [20, 20, 20], [20, 20, 20]), None),
        findings.memorised(POOR, use([1, 0, 0], [1, 0, 0], [1, 0, 0]), None),  # one row of those learned from
        findings.memorised(POOR, NONE, None),
        findings.miscalibrated(0.9, use([34, 33, 33], [34, 33, 33], [29, 28, 28]), 0.06),
        findings.miscalibrated(0.97, use([4, 3, 3], [4, 3, 3], [3, 2, 2]), 0.3),
        findings.weak_generator(-2.5, 100, {"bigram": Compared(-2.49, 0.2, 0.1)}),  # two standard errors
        findings.weak_generator(-3.0, 3, COUNTED),
        findings.unlabelled_rows((0.05, 0.02)),
        findings.unlabelled_rows(None),
    ],
)
def test_what_is_sound_or_may_be_chance_is_not_accused(finding):
    assert finding is None


def test_where_no_row_has_a_label_it_is_but_noted():
    every = use([97, 2, 1], [0, 0, 0], [0, 0, 0])
    assert findings.swallowing_label(NONE, every, NAMES).level == "note"
    assert findings.labels_never_predicted(NONE, use([97, 3, 0], [0, 0, 0], [0, 0, 0]), NAMES).level == "note"


@given(st.integers(2, 4), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=60))
def test_agreement_is_scikit_learns_kappa(label_count, pairs):
    y, predicted = (np.minimum(part, label_count - 1) for part in np.array(pairs).T)
    counts = (np.bincount(part, minlength=label_count) for part in (y, predicted))
    agreed = agreement(*counts, int(np.sum(y == predicted)))
    expected = cohen_kappa_score(y, predicted) if len({*y, *predicted}) > 1 else np.nan
    np.testing.assert_allclose(agreed.kappa, expected, atol=1e-12)


def test_the_error_of_agreement_is_that_of_shuffled_predictions():
    """By the permutation of predictions, which tell nothing then."""
    generator = np.random.default_rng(0)
    y, predicted = generator.choice(3, 200, p=[0.6, 0.3, 0.1]), generator.choice(3, 200, p=[0.5, 0.2, 0.3])
    counts = np.bincount(y, minlength=3), np.bincount(predicted, minlength=3)
    of_shuffled = [agreement(*counts, int(np.sum(y == generator.permutation(predicted)))) for _ in range(2000)]
    kappas = np.array([one.kappa for one in of_shuffled])
    assert abs(kappas.mean()) < 0.005
    assert of_shuffled[0].error == pytest.approx(kappas.std(), rel=0.06)
    assert 0.003 < np.mean([one.learned for one in of_shuffled]) < 0.02
    assert not agreement(np.array([50, 0]), np.array([45, 5]), 45).known  # one label alone: nothing to tell


def test_a_z_that_a_good_generator_does_without_is_no_fault():
    levels = [findings.dead_latent(DEAD, beta, sound).level for beta, sound in ((1.0, True), (1.0, False), (2.0, True))]
    assert levels == ["note", "warning", "warning"]


def test_many_labels_are_named_in_short():
    names = [f"tag{index}" for index in range(105)]
    counted = use([1050, 1050] + [0] * 103, np.full(105, 20), [20, 20] + [0] * 103)
    sentence = findings.labels_never_predicted(counted, counted, names).sentence
    assert sentence.startswith("Only 2 of 105 labels are ever predicted; never are 'tag2', 'tag3'")
    assert sentence.endswith("and 98 more.")


@pytest.fixture
def model():
    """A model of the toy problem, whose classifier tells its labels, and what it was trained on."""
    config = toy_config()
    prepared = prepare_table(toy_table(), config)
    backend = FakeBackend(config, prepared.schema.dimensions)
    labelled = prepared.training.take(np.flatnonzero(prepared.training.y >= 0))
    trained_on = TrainedOn.of(labelled, len(prepared.training) - len(labelled), len(prepared.schema.labels))
    return Diagnosed(backend, config, prepared.schema, trained_on=trained_on), prepared


@pytest.mark.parametrize("q", [(0.5, 0.5), (0.01, 0.99), (0.9, 0.1)])
def test_the_generators_bound_has_no_part_of_the_classifier(q):
    """log p(x|y,z) is -3 and -5 by label and z plays no part, so that log p(x) is known; the ELBO is below it by KL."""
    corpus, prior = Corpus.from_sequences([[4, 3]] * 5, [NO_LABEL] * 5), np.array([0.3, 0.7])
    backend = SimpleNamespace(
        classify=lambda x, source: np.tile(np.log(q), (len(x), 1)),
        latents=lambda x, source: latents(np.zeros((len(x), 2, 1)), 1.0),
        log_likelihood=lambda x, z, source: np.tile([-3.0, -5.0], (len(x), 1)),
    )
    facts = look_at_rows(backend, corpus, toy_config(), prior, seed=0)
    joint = prior * np.exp([-3.0, -5.0])
    np.testing.assert_allclose(facts.bound, np.log(joint.sum()), rtol=1e-12)
    gap = np.sum(q * np.log(q / (joint / joint.sum())))
    np.testing.assert_allclose(facts.bound - facts.elbo, gap, rtol=1e-9)


def test_rows_that_were_learned_from_are_told_from_others(model):
    diagnosed, prepared = model
    training, validation = prepared.training, prepared.validation
    labelled = training.take(np.flatnonzero(training.y >= 0))
    assert diagnosed.trained_on.seen(labelled).all()
    diagnosis = diagnose(diagnosed, training)
    assert diagnosis.trained.labelled_rows == len(labelled)
    assert diagnosis.held_out.labelled_rows == 0
    assert diagnosis.calibration is None
    seen = diagnosed.trained_on.seen(validation)
    others = diagnose(diagnosed, validation)
    assert others.held_out.labelled_rows == int(np.sum((validation.y >= 0) & ~seen))
    assert others.labels.rows == len(validation)


def test_figures_are_plain_values_whatever_is_missing(model):
    diagnosed, prepared = model
    diagnosis = diagnose(diagnosed, prepared.training.take(np.flatnonzero(prepared.training.y < 0)[:3]))
    plain = diagnosis.to_dict()
    assert plain["held_out"] == {"labelled_rows": 0, "accuracy": None}
    assert plain["separation"]["by_label"] == [None] * len(diagnosis.names)
    assert set(plain["labels"]) == set(diagnosis.names)
    classifier = dataclasses.replace(
        diagnosed.config, objective=dataclasses.replace(diagnosed.config.objective, name="classifier")
    )
    assert diagnose(diagnosed._replace(config=classifier), prepared.training).latent is None


def test_a_row_alone_can_be_looked_at(model):
    diagnosed, prepared = model
    assert diagnose(diagnosed, prepared.training.take(np.array([0]))).labels.rows == 1
