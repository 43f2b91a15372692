"""The plug-in in this process: the same rows, weights and noise give the core's ELBO, in one process or in two."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("yoyodyne", reason="the extra yoyodyne is not installed")

from yoyodyne import data
from yoyodyne.models.base import ConfigurationError

from seqssvae.backend import Batch, Dimensions, GivenRows
from seqssvae.config import (
    BetaConfig,
    Config,
    ConsistencyConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    TrainingConfig,
)
from seqssvae.data.vocabulary import END, START
from seqssvae.noise import draw_noise, noise_specs
from seqssvae.parameters import parameter_shapes
from seqssvae_torch.backend import TorchBackend
from seqssvae_torch.yoyodyne import SequenceSSVAE
from seqssvae_torch.yoyodyne.alphabet import first_state
from seqssvae_torch.yoyodyne.search import beam_search

NETWORKS = ModelConfig(
    latent_size=2, encoder=EncoderConfig(embedding_size=3, hidden_size=4), decoder=DecoderConfig(3, 4)
)
OBJECTIVE = ObjectiveConfig(
    alpha=3.0,
    beta=BetaConfig(schedule="constant", maximum=0.7),
    consistency=ConsistencyConfig(weight=2.0, steps=0),
)
SOURCES = ["xy", "y", "zx", "xxz", "y", "z"]
ROWS = [("abca", "[V];[PST]"), ("bb", ""), ("cab", "[N];[SG]"), ("a", ""), ("ccb", "[V];[PST]"), ("", "")]


def module(tmp_path: Any, transduces: bool = False) -> SequenceSSVAE:
    """The plug-in with its networks built from a file, in float64."""
    path = tmp_path / "train.tsv"
    rows = zip(ROWS, SOURCES, strict=True)
    lines = (f"{text}\t{label.replace('[', '').replace(']', '')}\t{source}\n" for (text, label), source in rows)
    path.write_text("".join(lines))
    columns = {"source_col": 3 if transduces else 1, "target_col": 1, "features_col": 2}
    module = data.DataModule(model_dir=str(tmp_path), train=str(path), batch_size=6, **columns)
    model = SequenceSSVAE(
        recipe="ssvae",
        networks=NETWORKS,
        objective=OBJECTIVE,
        index=module.index,
        target_vocab_size=module.target_vocab_size,
        vocab_size=module.vocab_size,
    )
    model._trainer = SimpleNamespace(datamodule=module, global_step=0, world_size=1)
    model.setup("fit")
    return model.double()


def host_batch(model: SequenceSSVAE) -> Any:
    loader = model._trainer.datamodule
    dataset = data.datasets.MappableDataset(loader.train, data.Mapper(loader.index), loader.parser)
    return loader.collator([dataset[row] for row in range(len(ROWS))])


def weights_of(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {name: generator.normal(0, 0.5, shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("transduces", [False, True], ids=["autoencoding", "transduction"])
def test_the_elbo_is_that_of_the_core(tmp_path: Any, transduces: bool) -> None:
    model = module(tmp_path, transduces)
    assert model.transduces == transduces
    assert model.label_names == ["N;SG", "V;PST"]
    weights = weights_of(model.ssvae.shapes)
    model.ssvae.set_weights(weights)
    labelled, unlabelled = model.batches(host_batch(model))
    assert labelled.y.tolist() == [1, 0, 1]
    noise = [
        draw_noise(
            noise_specs(NETWORKS, labels, *batch.x.shape, source_steps=batch.source_steps), np.random.default_rng(1)
        )
        for labels, batch in ((None, labelled), (2, unlabelled))
    ]
    rows = [
        model._built.rows(batch, observed, of_kind)
        for batch, observed, of_kind in zip((labelled, unlabelled), (True, False), noise, strict=True)
    ]
    loss, _ = model.loss_of(*rows)
    gradients = torch.autograd.grad(loss, list(model.ssvae.parameters()))

    # the core has the symbols in an order of its own; weights are mapped by symbol
    symbols, of_sources = {"a": 5, "b": 4, "c": 6}, {"x": 6, "y": 4, "z": 5}

    def mapped(name: str, value: np.ndarray) -> np.ndarray:
        source, reordered = name.startswith("source_encoder.tower.embedding"), value.copy()
        known, theirs = (of_sources, model.alphabet.source_symbols) if source else (symbols, model.alphabet.symbols)
        if source or value.shape[:1] == (7,):
            for place, symbol in enumerate(theirs, 4):
                reordered[known[symbol]] = value[place]
        return reordered

    config = Config(model=NETWORKS, objective=OBJECTIVE, training=TrainingConfig(precision="float64"))
    core = TorchBackend(config, Dimensions(7, (0.5, 0.5), 7 if transduces else 0))
    assert parameter_shapes(NETWORKS, 7, 2, 7 if transduces else 0) == model.ssvae.shapes
    core.set_weights({name: mapped(name, value) for name, value in weights.items()})

    def x(kind: list[int]) -> np.ndarray:
        texts = [[*(symbols[symbol] for symbol in ROWS[row][0]), END] for row in kind]
        length = max(len(text) for text, _ in ROWS) + 1
        return np.array([text + [0] * (length - len(text)) for text in texts], np.int32)

    def source(kind: list[int]) -> np.ndarray | None:
        texts = [[*(of_sources[symbol] for symbol in SOURCES[row]), END] for row in kind]
        return np.array([text + [0] * (4 - len(text)) for text in texts], np.int32) if transduces else None

    def batch(kind: list[int], y: list[int]) -> Batch:
        return Batch(x(kind), np.array(y, np.int32), np.ones(3, bool), np.arange(3, dtype=np.int32), source(kind))

    given = [
        GivenRows(batch(kind, y), of_kind)
        for kind, y, of_kind in (([0, 2, 4], [1, 0, 1], noise[0]), ([1, 3, 5], [-1] * 3, noise[1]))
    ]
    expected = core.differentiate(*given, 0.7)
    assert float(loss.detach()) == pytest.approx(float(expected.loss), rel=1e-9)
    named = dict(zip(dict(model.ssvae.named_parameters()), gradients, strict=True))
    for name, gradient in expected.gradients.items():
        np.testing.assert_allclose(mapped(name, named[name].numpy()), gradient, rtol=1e-9, atol=1e-12)


def _one_of_two(rank: int, folder: str, rows: list[list[int]], transduces: bool) -> None:
    """The gradient of a process with a part of the rows, averaged over both."""
    from pathlib import Path

    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = module(Path(folder) / str(rank), transduces)
    model.ssvae.set_weights(weights_of(model.ssvae.shapes))
    whole = given_rows(model)
    loss, _ = model.loss_of(*(taken(part, rows[rank]) for part in whole))
    gradients = torch.autograd.grad(loss, list(model.ssvae.parameters()))
    for gradient in gradients:
        torch.distributed.all_reduce(gradient)
        gradient /= 2
    if rank == 0:
        torch.save([gradient for gradient in gradients], f"{folder}/gradients.pt")
    torch.distributed.destroy_process_group()


def given_rows(model: SequenceSSVAE) -> list[Any]:
    """All rows with noise given row by row, labelled and unlabelled, each with the number of its line."""
    given = []
    for labels, batch in zip((None, 2), model.batches(host_batch(model)), strict=True):
        specs = noise_specs(NETWORKS, labels, *batch.x.shape, source_steps=batch.source_steps)
        noise = draw_noise(specs, np.random.default_rng(1))
        given.append((batch, model._built.rows(batch, labels is None, noise)))
    return given


def taken(part: Any, lines: list[int]) -> Any:
    batch, rows = part
    chosen = [place for place, line in enumerate(batch.rows) if line in lines]
    if not chosen:
        return None
    noise = {name: value[..., chosen, :] for name, value in rows.noise.items()}
    y = None if rows.y is None else rows.y[chosen]
    source = None if rows.source is None else rows.source[chosen]
    return rows._replace(x=rows.x[chosen], y=y, row_mask=rows.row_mask[chosen], noise=noise, source=source)


UNEQUAL, ONE_WITHOUT = [[0, 2, 1], [3, 4, 5]], [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize(
    ("rows", "transduces"),
    [
        pytest.param(UNEQUAL, False, marks=pytest.mark.thorough),
        (ONE_WITHOUT, False),
        pytest.param(UNEQUAL, True, marks=pytest.mark.thorough),
    ],
    ids=["2 and 1", "3 and 0", "2 and 1 with a source"],
)
def test_two_processes_have_the_gradient_of_one(tmp_path: Any, rows: list[list[int]], transduces: bool) -> None:
    """With unequal numbers of labelled rows, or none in one of them."""
    for name in ("0", "1", "one"):
        (tmp_path / name).mkdir()
    model = module(tmp_path / "one", transduces)
    model.ssvae.set_weights(weights_of(model.ssvae.shapes))
    loss, _ = model.loss_of(*(rows for _, rows in given_rows(model)))
    expected = torch.autograd.grad(loss, list(model.ssvae.parameters()))
    torch.multiprocessing.spawn(_one_of_two, (str(tmp_path), rows, transduces), nprocs=2)
    for gradient, value in zip(torch.load(tmp_path / "gradients.pt"), expected, strict=True):
        torch.testing.assert_close(gradient, value, rtol=1e-9, atol=1e-12)


def test_the_host_s_beam_finds_what_the_core_s_does(tmp_path: Any) -> None:
    """For each row with its own source; and without a target the posterior is p(y|source)."""
    model = module(tmp_path, transduces=True)
    model.ssvae.set_weights(weights_of(model.ssvae.shapes))
    batch = host_batch(model)
    latents = model._latents(batch, "transduction")
    theirs, scores = beam_search(model.ssvae.decoder, latents, 3, 6)
    ours, expected = model.ssvae.decoder(latents.y, latents.z, 6, source=latents.source).beam_search(3)
    assert len({tuple(row) for row in ours[:, 0].tolist()}) > 1
    symbols = [[symbol for symbol in row if symbol != START] for row in theirs[:, 0].tolist()]
    for row, of_core in zip(symbols, ours[:, 0].tolist(), strict=True):
        assert row[: len(of_core)] == of_core[: len(row)]
    torch.testing.assert_close(scores[:, 0].double(), expected[:, 0], rtol=1e-5, atol=1e-5)
    sources = model.alphabet.source(batch.source.tensor[:, 1:])
    alone = data.Batch(batch.source, features=batch.features)
    posterior = model.posterior(alone)
    np.testing.assert_allclose(posterior, np.exp(model._built.classify_source(sources)), rtol=1e-9)
    assert not np.allclose(posterior, model.posterior(batch))


def test_untied_embeddings_are_refused(tmp_path: Any) -> None:
    """The host then writes the symbols of sources otherwise than the file has them."""
    model = module(tmp_path, transduces=True)
    untied = SimpleNamespace(tie_embeddings=False)
    with pytest.raises(ConfigurationError, match=r"data.tie_embeddings must be true"):
        first_state(model._trainer.datamodule, untied, model.config, None, "")
