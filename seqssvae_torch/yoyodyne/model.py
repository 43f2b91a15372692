"""The model class for yoyodyne.

yoyodyne reads and batches the data, trains, checkpoints and writes predictions. A sequence is a row's target; its label
is the whole features field, an ordered tuple of features being one class, and an empty field (or a marker) a missing
label. Where source and target are different columns, the target is modelled given the source (inflection, say); where
they are the same one, it is modelled by itself. The core knows nothing of the host: here the host's batches become the
core's.
"""

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from yoyodyne import data, models
from yoyodyne.models.base import ConfigurationError

from seqssvae.backend import NO_LABEL, Batch, Dimensions, ELBOTerms
from seqssvae.config import Config, ModelConfig, ObjectiveConfig, TrainingConfig
from seqssvae.config.settings import from_dict, to_dict
from seqssvae.data.vocabulary import SPECIALS
from seqssvae.training.schedules import beta_at, consistency_at, temperature_at
from seqssvae_torch.core import TorchModel
from seqssvae_torch.yoyodyne.alphabet import Alphabet, Label, check_labels, first_state
from seqssvae_torch.yoyodyne.search import Latents, beam_search, latents_of
from seqssvae_torch.yoyodyne.totals import Totals, over_processes

STATE = "seqssvae"
"""Under which a checkpoint has what the networks are built from."""

NETWORKS, OBJECTIVE = ModelConfig(), ObjectiveConfig()
"""What they are unless they are given."""

Predicted = Literal["reconstruction", "transduction", "label", "generation"]
Decoding = Literal["greedy", "sample"]


class SequenceSSVAE(models.BaseModel):
    """A semi-supervised variational autoencoder of the target sequences, given the source where that is another column.

    Args:
        *args: Passed to the host's model.
        networks: As `model` in the core's configuration.
        objective: As there: every estimator and option.
        labels: The classes as the features column has them; None: those of the training file.
        missing: What the features column has where the label is missing.
        predicts: What `predict` writes: each row's reconstruction; what is made of its source, with its label or the
            most probable one; its label; or a new sequence of its label (and source). None: the second where there are
            sources, else the first.
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
        predicts: Predicted | None = None,
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
        self._totals = Totals()
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
            given = self.given_labels, self.missing
            self._build(first_state(self._datamodule, self.index, self.config, *given))

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
        if state is None or "source_symbols" not in state:
            raise ConfigurationError("The checkpoint is not one of this version of the model.")
        if self.core is None:
            self._build(state)
        if self.transduces != (state["source_symbols"] is not None):
            raise ConfigurationError("The checkpoint and data.source_col, data.target_col differ in having a source.")
        compared = {"labels": "labels", "symbols": "symbols", "source_symbols": "symbols of sources"}
        for name, what in {**compared, "networks": "model.init_args.networks"}.items():
            if self._state[name] != state[name]:
                raise ConfigurationError(f"The checkpoint was trained with other {what} than those given now.")
        self._built.baseline = {name: value.to(self.device) for name, value in state["baseline"].items()}

    def on_fit_start(self) -> None:
        """Check labels before anything is trained."""
        super().on_fit_start()
        self._check("val")

    def on_validation_start(self) -> None:
        """Check labels before anything is evaluated."""
        self._check("val")

    def on_test_start(self) -> None:
        """Check labels before anything is tested."""
        self._check("test")

    def on_predict_start(self) -> None:
        """Check labels before anything is predicted."""
        self._check("predict")

    def forward(self, batch: data.Batch) -> Any:
        """What `predict` writes: ids of the host's, and with a beam the score of each hypothesis."""
        if self.predicts == "label":
            return self.alphabet.label_ids(self.posterior(batch).argmax(-1))
        return self._decoded(self._latents(batch, self.predicts or self._usual))

    def predict_step(self, batch: data.Batch, batch_idx: int) -> Any:
        """What `predict` writes of a batch."""
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
            if name in ("classification", "consistency", "distillation"):
                rows = known if name == "classification" else size - known
            if rows:
                self.log(f"train_{name}", total / rows, batch_size=rows, on_epoch=True, on_step=False)
        return loss

    def loss_of(self, labelled: Any, unlabelled: Any) -> tuple[Tensor, tuple[ELBOTerms, ...]]:
        """The objective of a step of all processes: gradients are averaged over them, rows are counted over all.

        An aligned consistency term (`objective.consistency.aligned`) has labels' shares over a process's own rows.

        Args:
            labelled: Rows with a label and their noise, or None.
            unlabelled: The same without.
        """
        config, step = self.config.objective, self.global_step
        beta, temperature = beta_at(config.beta, step), temperature_at(config.temperature, step)
        counts = [0 if rows is None else int(rows.row_mask.sum()) for rows in (labelled, unlabelled)]
        every, processes = over_processes(counts, self.device)
        own, consistency = sum(counts), consistency_at(config.consistency, step)
        alpha = config.alpha if config.name == "ssvae" else 1.0
        if counts[0]:
            alpha *= counts[0] / every[0] * sum(every) / own
        if counts[1]:
            consistency *= counts[1] / every[1] * sum(every) / own
        loss, terms = self._built.loss(labelled, unlabelled, beta, temperature, consistency, alpha)
        share = own / sum(every)
        self._built.learn_baseline(unlabelled, terms, beta)
        untouched = sum(weight.sum() for weight in self.ssvae.parameters()) * 0.0  # every process has every gradient
        return processes * share * loss + untouched, terms

    def on_validation_epoch_start(self) -> None:
        """Forget the epoch before."""
        super().on_validation_epoch_start()
        self._totals = Totals()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: data.Batch, batch_idx: int) -> None:
        """Add up a batch's terms, at beta 1 and with every label summed out, and compare its reconstructions."""
        y = self._labels(batch)
        self._totals.add(self._built.evaluate(self._core_batch(batch, y), seed=batch_idx), y)
        if self.has_accuracy or self.has_ser:
            decoded = self._decoded(self._latents(batch, self._usual), greedy=True)
            self._update_metrics(*self._align(decoded, batch.target.tensor))

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's means."""
        if not self.trainer.sanity_checking:
            self._log_means("val")

    def on_test_epoch_end(self) -> None:
        """Log the means over the test rows."""
        self._log_means("test")

    def _log_means(self, subset: str) -> None:
        for name, value in self._totals.means(self.config.objective, self.device).items():
            self.log(f"{subset}_{name}", value, prog_bar=name in ("loss", "label_accuracy"))
        self._log_metrics_on_epoch_end(subset)

    # What is ours

    @torch.no_grad()
    def posterior(self, batch: data.Batch) -> Float[np.ndarray, "B K"]:
        """q(y|x) of every row, or q(y|source,x); p(y|source) where there is no target."""
        rows = self._core_batch(batch, None)
        if self.transduces and not batch.has_target:
            assert rows.source is not None
            log_q_y = self._built.classify_source(rows.source)
        else:
            log_q_y = self._built.classify(rows.x, rows.source)
        probabilities = np.exp(log_q_y.astype(float))
        return probabilities / probabilities.sum(-1, keepdims=True)

    def batches(self, batch: data.Batch) -> tuple[Batch | None, Batch | None]:
        """The rows with a label, and those without."""
        y = self._labels(batch)
        whole = self._core_batch(batch, y)
        chosen = (np.flatnonzero(y != NO_LABEL), np.flatnonzero(y == NO_LABEL))
        labelled, unlabelled = (whole.take(rows) if len(rows) else None for rows in chosen)
        return labelled, unlabelled

    @property
    def transduces(self) -> bool:
        """Whether sequences are made from a source."""
        return self._state["source_symbols"] is not None

    @property
    def _usual(self) -> Predicted:
        return "transduction" if self.transduces else "reconstruction"

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

    def _build(self, state: dict[str, Any]) -> None:
        parser = self._datamodule.parser
        labels = [tuple(parser.features_symbols(name)) for name in state["labels"]]
        self.alphabet = Alphabet(self.index, labels, self._missing_label)
        sources = None if state["source_symbols"] is None else self.alphabet.source_symbols
        self._state = {**state, "symbols": self.alphabet.symbols, "source_symbols": sources}
        settings = to_dict(self.config)
        self.config = from_dict({**settings, "model": state["networks"]})
        self._state["networks"] = to_dict(self.config)["model"]
        sizes = [0 if symbols is None else len(SPECIALS) + len(symbols) for symbols in (self.alphabet.symbols, sources)]
        dimensions = Dimensions(sizes[0], tuple(state["label_prior"]), sizes[1])
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
        check_labels(path, parser, self.label_names, self._missing_label)

    def _labels(self, batch: data.Batch) -> Int[np.ndarray, " B"]:
        _ = self._built
        if not batch.has_features:
            return np.full(len(batch), NO_LABEL, np.int32)
        return self.alphabet.y(batch.features.tensor)

    def _core_batch(self, batch: data.Batch, y: Int[np.ndarray, " B"] | None) -> Batch:
        """All rows as the core takes them."""
        _ = self._built
        return self.alphabet.rows(batch, y, self.transduces)

    @torch.no_grad()
    def _latents(self, batch: data.Batch, predicts: Predicted) -> Latents:
        """Label, z and source of each row, for a decoder; the most probable label where it is missing."""
        if predicts == "transduction" and not self.transduces:
            raise ConfigurationError(
                "predicts: transduction needs a source: set source_col to another than target_col."
            )
        if predicts == "reconstruction" and self.transduces and not batch.has_target:
            raise ConfigurationError("predicts: reconstruction needs what is to be reconstructed: set target_col.")
        y, core = self._labels(batch), self._built
        rows = self._core_batch(batch, y)
        if predicts == "generation" and (y == NO_LABEL).any():
            raise ConfigurationError("A row without a label cannot say what to generate: fill its features column.")
        x = self._moved(rows.x) if predicts == "reconstruction" else None
        source = None if rows.source is None else self._moved(rows.source)
        return latents_of(core.ssvae, x, self._moved(y), source, draw=predicts == "generation")

    def _moved(self, ids: Int[np.ndarray, "..."]) -> Int[Tensor, "..."]:
        return torch.as_tensor(ids, device=self.device).long()

    @torch.no_grad()
    def _decoded(self, latents: Latents, greedy: bool = False) -> Any:
        """Sequences of these labels and z: ids of the host's, and with a beam the score of each hypothesis."""
        to_host, steps = self.alphabet.to_host.to(self.device), self.max_target_length
        if self.beam_width > 1 and not greedy:
            sequences, scores = beam_search(self.ssvae.decoder, latents, self.beam_width, steps)
            return to_host[sequences], scores
        decoder = self.ssvae.decoder(latents.y, latents.z, steps, source=latents.source)
        sequences = decoder.greedy() if greedy or self.decoding == "greedy" else decoder.sample()
        return to_host[sequences]
