"""The plug-in for yoyodyne: its model class, and the callback that writes posteriors.

yoyodyne reads and batches the data, trains, checkpoints and writes predictions. A sequence is a row's target; its label
is the whole features field, an ordered tuple of features being one class, and an empty field (or a marker) a missing
label. The core knows nothing of the host: here the host's batches become the core's.
"""

import csv
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from yoyodyne import data, models
from yoyodyne.models.base import ConfigurationError
from yoyodyne.models.beam_search import BatchedBeam

from seqssvae.backend import NO_LABEL, Batch, Dimensions, ELBOTerms
from seqssvae.config import Config, ModelConfig, ObjectiveConfig, TrainingConfig
from seqssvae.corpus import label_prior
from seqssvae.schedules import beta_at, temperature_at
from seqssvae.settings import from_dict, to_dict
from seqssvae.vocabulary import END, PAD, Labels
from seqssvae_torch.backend import TorchModel
from seqssvae_torch.distributions import AutoregressiveCategorical
from seqssvae_torch.modules import ConditionedDecoder
from seqssvae_torch.yoyodyne_data import Alphabet, Label, Read, labels_of, read_labels

LOOKS_MISSING = {"_", "-", "?", "*", "NA", "N/A", "nan", "NaN", "None", "none", "NULL", "null", "UNK"}
"""Fields that are hardly a label's name."""
STATE = "seqssvae"
"""Under which a checkpoint has what the networks are built from."""

NETWORKS, OBJECTIVE = ModelConfig(), ObjectiveConfig()
"""What they are unless they are given."""

Predicted = Literal["reconstruction", "label", "generation"]
Decoding = Literal["greedy", "sample"]


class SequenceSSVAE(models.BaseModel):
    """A semi-supervised variational autoencoder of the target sequences.

    Args:
        *args: Passed to the host's model.
        networks: As `model` in the core's configuration.
        objective: As there: every estimator and option.
        labels: The classes as the features column has them; None: those of the training file.
        missing: What the features column has where the label is missing.
        predicts: What `predict` writes: each row's reconstruction, its label, or a new sequence of its label.
        decoding: How a sequence is decoded where `beam_width` is 1.
        index: The host's symbols.
        **kwargs: Passed to the host's model.
    """

    def __init__(
        self,
        *args: Any,
        networks: ModelConfig = NETWORKS,
        objective: ObjectiveConfig = OBJECTIVE,
        labels: list[str] | None = None,
        missing: str = "",
        predicts: Predicted = "reconstruction",
        decoding: Decoding = "greedy",
        index: data.indexes.Index | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        seed = torch.initial_seed() % 2**31
        self.config = Config(model=networks, objective=objective, training=TrainingConfig(seed=seed))
        self.given_labels, self.missing = labels, missing
        self.predicts, self.decoding = predicts, decoding
        self.index = index
        self.core: TorchModel | None = None
        self._checked: set[str] = set()
        self._sums = torch.zeros(0)
        # nothing that is given anew with each command is taken from a checkpoint behind the user's back
        self.save_hyperparameters(
            ignore=["networks", "objective", "labels", "missing", "predicts", "decoding", "index", "beam_width"]
        )

    # What the host asks for

    @property
    def name(self) -> str:
        """Shown by the host."""
        return "semi-supervised VAE"

    def get_decoder(self) -> Any:
        """The host's decoder: none, the core has its own."""
        return None

    @staticmethod
    def init_embeddings(num_embeddings: int, embedding_size: int) -> nn.Embedding:
        """The host's embeddings: none to speak of, the core has its own."""
        embeddings = nn.Embedding(1, 1)
        embeddings.weight.requires_grad_(False)
        return embeddings

    def setup(self, stage: str) -> None:
        """Build the networks, whose size the training file decides; without one, a checkpoint does."""
        if self.core is None and self._datamodule.train:
            self._build(self._first_state())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the networks are built from."""
        baseline = {name: value.cpu() for name, value in self._built.baseline.items()}
        checkpoint[STATE] = {**self._state, "baseline": baseline}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the networks, or check that they are those of the checkpoint.

        Raises:
            ConfigurationError: If they are not.
        """
        state = checkpoint.get(STATE)
        if state is None:
            raise ConfigurationError("The checkpoint is not one of this model.")
        if self.core is None:
            self._build(state)
        for name, what in (("labels", "labels"), ("symbols", "symbols"), ("networks", "model.init_args.networks")):
            if self._state[name] != state[name]:
                raise ConfigurationError(f"The checkpoint was trained with other {what} than those given now.")
        self._built.baseline = {name: value.to(self.device) for name, value in state["baseline"].items()}

    def on_fit_start(self) -> None:
        """Check labels before anything is trained."""
        super().on_fit_start()
        self._check("val")

    def on_validation_start(self) -> None:
        """The same."""
        self._check("val")

    def on_test_start(self) -> None:
        """The same."""
        self._check("test")

    def on_predict_start(self) -> None:
        """The same."""
        self._check("predict")

    def forward(self, batch: data.Batch) -> Any:
        """What `predict` writes: ids of the host's, and with a beam the score of each hypothesis."""
        if self.predicts == "label":
            return self._label_ids(self.posterior(batch).argmax(-1))
        y = self._labels(batch)
        if self.predicts == "generation":
            if (y == NO_LABEL).any():
                raise ConfigurationError("A row without a label cannot say what to generate: fill its features column.")
            z = torch.randn(len(y), self.config.model.latent_size, device=self.device)
        else:
            y, z = self._encoded(batch, y)
        return self._decoded(torch.as_tensor(y, device=self.device).long(), z)

    def predict_step(self, batch: data.Batch, batch_idx: int) -> Any:
        """The same."""
        return self(batch)

    def training_step(self, batch: data.Batch, batch_idx: int) -> Tensor:
        """The core's objective on the rows of a batch, with a label and without."""
        number = self.trainer.fit_loop.epoch_loop.total_batch_idx * self.trainer.world_size + self.trainer.global_rank
        labelled, unlabelled = self.batches(batch)
        loss, terms = self.loss_of(*self._built.drawn(labelled, unlabelled, number))
        size, known = len(batch), 0 if labelled is None else len(labelled.x)
        self.log("train_loss", loss.detach(), batch_size=size, on_epoch=True, on_step=False, prog_bar=True)
        for name in ELBOTerms._fields:
            total, rows = sum(getattr(of_kind, name).sum() for of_kind in terms), size
            if name == "classification":
                rows = known
            if rows:
                self.log(f"train_{name}", total / rows, batch_size=rows, on_epoch=True, on_step=False)
        return loss

    def loss_of(self, labelled: Any, unlabelled: Any) -> tuple[Tensor, tuple[ELBOTerms, ...]]:
        """The objective of a step of all processes: gradients are averaged over them, rows are counted over all.

        Args:
            labelled: Rows with a label and their noise, or None.
            unlabelled: The same without.
        """
        config, step = self.config.objective, self.global_step
        beta, temperature = beta_at(config.beta, step), temperature_at(config.temperature, step)
        counts = [0 if rows is None else int(rows.row_mask.sum()) for rows in (labelled, unlabelled)]
        every, processes = self._over_processes(counts)
        own, alpha = sum(counts), config.alpha
        if counts[0]:
            alpha *= counts[0] / every[0] * sum(every) / own
        loss, terms = self._built.loss(labelled, unlabelled, beta, temperature, alpha)
        share = own / sum(every)
        if config.name == "classifier":
            share = counts[0] / max(every[0], 1)
        self._built.learn_baseline(unlabelled, terms, beta)
        untouched = sum(weight.sum() for weight in self.ssvae.parameters()) * 0.0  # every process has every gradient
        return processes * share * loss + untouched, terms

    def on_validation_epoch_start(self) -> None:
        """Forget the epoch before."""
        super().on_validation_epoch_start()
        self._sums = torch.zeros(7, dtype=torch.float64)

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: data.Batch, batch_idx: int) -> None:
        """Add up a batch's terms, at beta 1 and with every label summed out, and compare its reconstructions."""
        y = self._labels(batch)
        found = self._built.evaluate(self._core_batch(batch, y), seed=batch_idx)
        known = y != NO_LABEL
        of_known = found.log_q_y[known]
        surprise = -of_known[np.arange(known.sum()), y[known]].sum()
        correct = (of_known.argmax(-1) == y[known]).sum()
        terms = [term.sum() for term in found.terms[:3]]
        self._sums += torch.tensor([*terms, len(y), surprise, correct, known.sum()], dtype=torch.float64)
        if self.has_accuracy or self.has_ser:
            decoded = self._decoded(*self._moved(*self._encoded(batch, y)), greedy=True)
            self._update_metrics(*self._align(decoded, batch.target.tensor))

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's means."""
        if not self.trainer.sanity_checking:
            self._log_means("val")

    def on_test_epoch_end(self) -> None:
        """The same."""
        self._log_means("test")

    # What is ours

    @torch.no_grad()
    def posterior(self, batch: data.Batch) -> Float[np.ndarray, "B K"]:
        """q(y|x) of every row."""
        found = np.exp(self._built.classify(self._core_batch(batch, None).x).astype(float))
        return found / found.sum(-1, keepdims=True)

    def batches(self, batch: data.Batch) -> tuple[Batch | None, Batch | None]:
        """The rows with a label, and those without."""
        y = self._labels(batch)
        whole = self._core_batch(batch, y)
        chosen = (np.flatnonzero(y != NO_LABEL), np.flatnonzero(y == NO_LABEL))
        labelled, unlabelled = (
            Batch(*(getattr(whole, field)[rows] for field in ("x", "y", "row_mask", "rows"))) if len(rows) else None
            for rows in chosen
        )
        return labelled, unlabelled

    @property
    def label_names(self) -> list[str]:
        """The classes, in the order of their ids."""
        return list(self._state["labels"])

    @property
    def _built(self) -> TorchModel:
        if self.core is None:
            raise ConfigurationError("There is no model yet: give data.train, or --ckpt_path.")
        self.core.device = self.device
        return self.core

    @property
    def _datamodule(self) -> Any:
        return self.trainer.datamodule

    def _first_state(self) -> dict[str, Any]:
        """What the networks are built from, as the training file has it."""
        parser, path = self._datamodule.parser, self._datamodule.train
        if not parser.has_target:
            raise ConfigurationError(
                "data.target_col is 0: to model the sequences of one column, name it as target_col."
            )
        names = self.given_labels
        read = read_labels(path, parser, self._missing_label) if parser.has_features else Read({}, 0)
        found = {parser.features_string(label): count for label, count in read.counts.items()}
        if self.missing and not read.missing:
            raise ConfigurationError(
                f"No row of {path} has {self.missing!r} in its features column, which missing= says marks a missing "
                f"label; the column has {', '.join(found) or 'nothing'}."
            )
        if names is not None and (others := [name for name in found if name not in names]):
            raise ConfigurationError(
                f"{path} has the label {others[0]!r}, which is not one of labels= ({', '.join(names)})."
            )
        names = list(names or sorted(found))
        if len(names) < 2:
            has = f"only the label {names[0]!r}" if names else "no label"
            raise ConfigurationError(f"{path} has {has}: name at least two classes by labels=, and their features_col.")
        for name in names:
            if name in LOOKS_MISSING:
                rank_zero_warn(f"{name!r} is taken as a class; if it marks a missing label, say missing: {name!r}.")
        rank_zero_info(f"{len(names)} classes: {', '.join(names)}; {read.missing} rows without a label.")
        y = np.repeat(np.arange(len(names)), [found.get(name, 0) for name in names]).astype(np.int32)
        prior = label_prior(self.config.model, Labels(tuple(names)), y)
        alphabet = Alphabet(self.index, [], self._missing_label)
        networks = to_dict(self.config)["model"]
        separator = parser.target_sep
        return {
            "labels": names,
            "symbols": alphabet.symbols,
            "separator": separator,
            "label_prior": list(prior),
            "networks": networks,
            "objective": to_dict(self.config)["objective"],
            "seed": self.config.training.seed,
            "baseline": {},
        }

    def _build(self, state: dict[str, Any]) -> None:
        parser = self._datamodule.parser
        labels = [tuple(parser.features_symbols(name)) for name in state["labels"]]
        self.alphabet = Alphabet(self.index, labels, self._missing_label)
        self._state = {**state, "symbols": self.alphabet.symbols}
        settings = to_dict(self.config)
        self.config = from_dict({**settings, "model": state["networks"]})
        self._state["networks"] = to_dict(self.config)["model"]
        dimensions = Dimensions(len(self.alphabet.to_host), tuple(state["label_prior"]))
        self.core = TorchModel(self.config, dimensions, str(self.device))
        self.ssvae = self.core.ssvae

    @property
    def _missing_label(self) -> Label:
        return tuple(self._datamodule.parser.features_symbols(self.missing))

    def _check(self, name: str) -> None:
        """Name the first label of a file that the model does not know.

        Raises:
            ConfigurationError: If there is one.
        """
        path, parser = getattr(self._datamodule, name), self._datamodule.parser
        if not path or not parser.has_features or path in self._checked:
            return
        self._checked.add(path)
        _ = self._built
        known = {tuple(parser.features_symbols(label)) for label in self.label_names}
        for line, label in labels_of(path, parser):
            if label not in known and label not in (self._missing_label, ()):
                raise ConfigurationError(
                    f"{path}, line {line}: the label {parser.features_string(label)!r} is none of those of the "
                    f"training data ({', '.join(self.label_names)})."
                )

    def _labels(self, batch: data.Batch) -> Int[np.ndarray, "B"]:
        _ = self._built
        if not batch.has_features:
            return np.full(len(batch), NO_LABEL, np.int32)
        return self.alphabet.y(batch.features.tensor)

    def _core_batch(self, batch: data.Batch, y: Int[np.ndarray, "B"] | None) -> Batch:
        """All rows as the core takes them."""
        _ = self._built
        sequences = batch.target.tensor if batch.has_target else batch.source.tensor[:, 1:]  # without the first symbol
        rows = len(sequences)
        labels = np.full(rows, NO_LABEL, np.int32) if y is None else y
        return Batch(self.alphabet.x(sequences), labels, np.ones(rows, bool), np.arange(rows, dtype=np.int32))

    @torch.no_grad()
    def _encoded(self, batch: data.Batch, y: Int[np.ndarray, "B"]) -> tuple[Int[np.ndarray, "B"], Tensor]:
        """The label of each row, the most probable one where it is missing, and the mean of z for it."""
        core, x = self._built, self._core_batch(batch, y).x
        features = self.ssvae.encoder(torch.as_tensor(x, device=self.device).long())
        likely = self.ssvae.classifier(features).logits.argmax(-1).cpu().numpy()
        y = np.where(y == NO_LABEL, likely, y)
        one_hot = core.ssvae.one_hot(torch.as_tensor(y, device=self.device))
        return y, self.ssvae.latent_encoder(features, one_hot).loc

    def _moved(self, y: Int[np.ndarray, "B"], z: Tensor) -> tuple[Tensor, Tensor]:
        return torch.as_tensor(y, device=self.device).long(), z

    @torch.no_grad()
    def _decoded(self, y: Int[Tensor, "B"], z: Float[Tensor, "B Z"], greedy: bool = False) -> Any:
        """Sequences of these labels and z: ids of the host's, and with a beam the score of each hypothesis."""
        to_host, steps = self.alphabet.to_host.to(self.device), self.max_target_length + 1
        if self.beam_width > 1 and not greedy:
            sequences, scores = self._beam(y, z, steps)
            return to_host[sequences], scores
        decoder = self.ssvae.decoder(self.ssvae.one_hot(y), z, steps)
        found = decoder.greedy() if greedy or self.decoding == "greedy" else decoder.sample()
        return to_host[found]

    def _beam(self, y: Int[Tensor, "B"], z: Float[Tensor, "B Z"], steps: int) -> tuple[Tensor, Tensor]:
        """The host's beam search, with the core's decoder."""
        vectors = self.ssvae.one_hot(y)
        first = ConditionedDecoder(self.ssvae.decoder, vectors, z, {}).initial_states()
        rows = [[tuple(part[:, row : row + 1] for part in layer) for layer in first] for row in range(len(y))]
        beams = BatchedBeam(self.beam_width, len(y), rows)
        for _ in range(steps):
            symbols, items, states, places = beams.collect_active(self.device)
            if not places:
                break
            layers = [
                tuple(torch.cat(parts, 1) for parts in zip(*of_layer, strict=True))
                for of_layer in zip(*states, strict=True)
            ]
            decoder = ConditionedDecoder(self.ssvae.decoder, vectors[items], z[items], {})
            logits, layers = decoder.step(symbols.t(), layers)
            new = [[tuple(part[:, n : n + 1] for part in layer) for layer in layers] for n in range(len(places))]
            beams.push_final_cells()
            beams.fan_out_stateful(AutoregressiveCategorical._log_softmax(logits)[0], new, places)
            beams.update()
        return beams.predictions(self.device), beams.scores(self.device)

    def _label_ids(self, y: Int[np.ndarray, "B"]) -> Int[Tensor, "B L"]:
        """Labels as the host's features, with END behind them."""
        rows = [torch.tensor([*self.alphabet.of_label[label], END]) for label in y]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)

    def _over_processes(self, counts: list[int]) -> tuple[list[int], int]:
        """Sums over all processes, and their number."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return counts, 1
        total = torch.tensor(counts, device=self.device)
        torch.distributed.all_reduce(total)
        return total.tolist(), torch.distributed.get_world_size()

    def _log_means(self, subset: str) -> None:
        total = self._sums.to(self.device, torch.float32)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        reconstruction, kl_z, kl_y, rows, surprise, correct, known = total.tolist()
        generative, alpha = self.config.objective.name == "ssvae", self.config.objective.alpha
        found, loss = {}, 0.0
        if generative:
            found = {"reconstruction": reconstruction / rows, "kl_z": kl_z / rows, "kl_y": kl_y / rows}
            loss = found["kl_z"] + found["kl_y"] - found["reconstruction"]
        if known:
            found |= {"classification": surprise / known, "label_accuracy": correct / known}
            loss += (alpha if generative else 1.0) * found["classification"]
        for name, value in {"loss": loss, **found}.items():
            self.log(f"{subset}_{name}", value, prog_bar=name in ("loss", "label_accuracy"))
        self._log_metrics_on_epoch_end(subset)


class PosteriorWriter(BasePredictionWriter):
    """Writes q(y|x) of every row that is predicted: its most probable label, and the probability of each.

    Args:
        path: TSV file to write, with a line that names the columns.
    """

    def __init__(self, path: str) -> None:
        super().__init__("batch")
        self.path = path

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Write the names of the columns."""
        self._write("w", [["label", *pl_module.label_names]])

    def write_on_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        prediction: Any,
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """A line a row."""
        names, posterior = pl_module.label_names, pl_module.posterior(batch)
        self._write("a", [[names[row.argmax()], *(f"{value:.8g}" for value in row)] for row in posterior])

    def _write(self, mode: str, lines: list[list[str]]) -> None:
        with open(self.path, mode, encoding="utf-8", newline="") as sink:
            csv.writer(sink, delimiter="\t").writerows(lines)
