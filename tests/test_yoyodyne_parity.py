"""The plug-in in this process: the same rows, weights and noise give the core's ELBO, in one process or in two."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("yoyodyne", reason="the extra yoyodyne is not installed")

from yoyodyne import data

from seqssvae.backend import Batch, Dimensions, GivenRows
from seqssvae.config import (
    BetaConfig,
    Config,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    TrainingConfig,
)
from seqssvae.noise import draw_noise, noise_specs
from seqssvae.parameters import parameter_shapes
from seqssvae.vocabulary import END
from seqssvae_torch.backend import TorchBackend
from seqssvae_torch.yoyodyne import SequenceSSVAE

NETWORKS = ModelConfig(latent_size=2, encoder=EncoderConfig(3, 4), decoder=DecoderConfig(3, 4))
OBJECTIVE = ObjectiveConfig(alpha=3.0, beta=BetaConfig(schedule="constant", maximum=0.7))
ROWS = [("abca", "[V];[PST]"), ("bb", ""), ("cab", "[N];[SG]"), ("a", ""), ("ccb", "[V];[PST]"), ("", "")]


def parser_of(missing: str = "") -> Any:
    from yoyodyne.data.tsv import TsvParser

    return TsvParser(source_col=1, features_col=2, target_col=1, features_sep=";")


def module(tmp_path: Any) -> SequenceSSVAE:
    """The plug-in with its networks built from a file, in float64."""
    path = tmp_path / "train.tsv"
    path.write_text("".join(f"{text}\t{label.replace('[', '').replace(']', '')}\n" for text, label in ROWS))
    module = data.DataModule(
        model_dir=str(tmp_path), train=str(path), source_col=1, target_col=1, features_col=2, batch_size=6
    )
    model = SequenceSSVAE(
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


def test_the_elbo_is_that_of_the_core(tmp_path: Any) -> None:
    model = module(tmp_path)
    assert model.label_names == ["N;SG", "V;PST"]
    weights = weights_of(model.ssvae.shapes)
    model.ssvae.set_weights(weights)
    labelled, unlabelled = model.batches(host_batch(model))
    assert labelled.y.tolist() == [1, 0, 1]
    noise = [
        draw_noise(noise_specs(NETWORKS, labels, *batch.x.shape), np.random.default_rng(1))
        for labels, batch in ((None, labelled), (2, unlabelled))
    ]
    rows = [
        model._built.rows(batch, observed, of_kind)
        for batch, observed, of_kind in zip((labelled, unlabelled), (True, False), noise, strict=True)
    ]
    loss, _ = model.loss_of(*rows)
    gradients = torch.autograd.grad(loss, list(model.ssvae.parameters()))

    symbols = {"a": 5, "b": 4, "c": 6}  # the core has them in an order of its own; weights are mapped by symbol
    ours = {"a": 4, "b": 5, "c": 6}
    host = {symbol: model.alphabet.symbols.index(symbol) + 4 for symbol in "abc"}
    moved = dict(weights)
    for name, value in weights.items():
        if value.shape[:1] == (7,):
            moved[name] = value.copy()
            for symbol in "abc":
                moved[name][symbols[symbol]] = value[host[symbol]]
    config = Config(model=NETWORKS, objective=OBJECTIVE, training=TrainingConfig(precision="float64"))
    core = TorchBackend(config, Dimensions(7, (0.5, 0.5)))
    assert parameter_shapes(NETWORKS, 7, 2) == model.ssvae.shapes
    core.set_weights(moved)
    assert ours

    def x(kind: list[int]) -> np.ndarray:
        texts = [[*(symbols[symbol] for symbol in ROWS[row][0]), END] for row in kind]
        length = max(len(text) for text, _ in ROWS) + 1
        return np.array([text + [0] * (length - len(text)) for text in texts], np.int32)

    given = [
        GivenRows(Batch(x(kind), np.array(y, np.int32), np.ones(3, bool), np.arange(3, dtype=np.int32)), of_kind)
        for kind, y, of_kind in (([0, 2, 4], [1, 0, 1], noise[0]), ([1, 3, 5], [-1] * 3, noise[1]))
    ]
    expected = core.differentiate(*given, 0.7)
    assert float(loss.detach()) == pytest.approx(float(expected.loss), rel=1e-9)
    named = dict(zip(dict(model.ssvae.named_parameters()), gradients, strict=True))
    for name, gradient in expected.gradients.items():
        found = named[name].numpy()
        if gradient.shape[:1] == (7,):
            found = found.copy()
            for symbol in "abc":
                found[symbols[symbol]] = named[name].numpy()[host[symbol]]
        np.testing.assert_allclose(found, gradient, rtol=1e-9, atol=1e-12)


def _one_of_two(rank: int, folder: str, rows: list[list[int]]) -> None:
    """The gradient of a process with a part of the rows, averaged over both."""
    from pathlib import Path

    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = module(Path(folder) / str(rank))
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
    found = []
    for labels, batch in zip((None, 2), model.batches(host_batch(model)), strict=True):
        noise = draw_noise(noise_specs(NETWORKS, labels, *batch.x.shape), np.random.default_rng(1))
        found.append((batch, model._built.rows(batch, labels is None, noise)))
    return found


def taken(part: Any, lines: list[int]) -> Any:
    batch, rows = part
    chosen = [place for place, line in enumerate(batch.rows) if line in lines]
    if not chosen:
        return None
    noise = {name: value[..., chosen, :] for name, value in rows.noise.items()}
    y = None if rows.y is None else rows.y[chosen]
    return rows._replace(x=rows.x[chosen], y=y, row_mask=rows.row_mask[chosen], noise=noise)


@pytest.mark.parametrize("rows", [[[0, 2, 1], [3, 4, 5]], [[0, 2, 4], [1, 3, 5]]], ids=["2 and 1", "3 and 0"])
def test_two_processes_have_the_gradient_of_one(tmp_path: Any, rows: list[list[int]]) -> None:
    """With unequal numbers of labelled rows, or none in one of them."""
    for name in ("0", "1", "one"):
        (tmp_path / name).mkdir()
    model = module(tmp_path / "one")
    model.ssvae.set_weights(weights_of(model.ssvae.shapes))
    loss, _ = model.loss_of(*(rows for _, rows in given_rows(model)))
    expected = torch.autograd.grad(loss, list(model.ssvae.parameters()))
    torch.multiprocessing.spawn(_one_of_two, (str(tmp_path), rows), nprocs=2)
    for found, value in zip(torch.load(tmp_path / "gradients.pt"), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-12)
