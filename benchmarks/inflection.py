"""Inflection by the host's command: what untagged rows are worth, and the plug-in beside the host's own models.

All models see the same files (`benchmarks.russian`), have the same sizes, batches, optimiser, dropout and most training
steps, and the checkpoint with the best accuracy on the same development rows; a job is a process with one thread, and
as many run side by side as there are cores. `python -m benchmarks.inflection [untagged] [tagged]` prints the tables.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.results import add_result
from benchmarks.russian import write

EMBEDDING, HIDDEN, LATENT, DROPOUT, LEARNING_RATE = 64, 128, 16, 0.2, 2e-3
EPOCHS, PATIENCE, BATCH = 40, 8, 64
RESULTS = Path("docs/benchmarks.json")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
OURS = "seqssvae_torch.yoyodyne.SequenceSSVAE"


@dataclass(frozen=True)
class Job:
    """One training.

    Args:
        name: What is compared.
        seed: Of weights, order and noise.
        train: The training file.
        model: The host's name of the model's class.
        interval: Epochs between evaluations: as many as make one of the whole file's.
        longer: By what most epochs and patience are multiplied, for what learns more slowly.
        init: Arguments of the model.
        data: Other columns than lemma, form and tag.
        suffix: Of the files that have such columns.
    """

    name: str
    seed: int
    train: str
    model: str
    interval: int = 1
    longer: int = 1
    init: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    suffix: str = ""


def ours() -> dict[str, Any]:
    """Arguments of the plug-in; of three objectives, that which did best on the development rows with seed 0."""
    encoder = {"embedding_size": EMBEDDING, "hidden_size": HIDDEN}
    decoder = {**encoder, "conditioning": "every_step"}
    networks = {"latent_size": LATENT, "encoder": encoder, "decoder": decoder, "dropout": DROPOUT}
    beta = {"schedule": "linear", "floor": 0.1, "maximum": 1.0, "steps": 1000}
    return {"networks": networks, "objective": {"alpha": 10.0, "label_gradient": 0.0, "beta": beta}}


def theirs(features: bool) -> dict[str, Any]:
    """Arguments of one of the host's models."""
    modules = "yoyodyne.models.modules"
    sizes = {"embedding_size": EMBEDDING, "dropout": DROPOUT}
    source = {"class_path": f"{modules}.GRUEncoder", "init_args": {**sizes, "hidden_size": HIDDEN}}
    of_features = {"class_path": f"{modules}.LinearEncoder", "init_args": {**sizes, "output_size": 2 * HIDDEN}}
    return {
        "embedding_size": EMBEDDING,
        "decoder_hidden_size": HIDDEN,
        "decoder_dropout": DROPOUT,
        "source_encoder": source,
        **({"features_encoder": of_features} if features else {}),
    }


def settings(job: Job, place: Path, data: Path) -> dict[str, Any]:
    """The host's configuration of a job."""
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": LEARNING_RATE}}
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(place / "logs")}}
    stopping = {
        "class_path": "lightning.pytorch.callbacks.EarlyStopping",
        "init_args": {"monitor": "val_accuracy", "mode": "max", "patience": PATIENCE * job.longer},
    }
    return {
        "seed_everything": job.seed,
        "trainer": {
            "max_epochs": EPOCHS * job.interval * job.longer,
            "check_val_every_n_epoch": job.interval,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "gradient_clip_val": 5.0,
            "logger": logger,
            "callbacks": [stopping],
        },
        "model": {
            "class_path": job.model,
            "init_args": {**job.init, "optimizer": adam, "compute_accuracy": True, "max_target_length": 24},
        },
        "data": {
            "model_dir": str(place / "model"),
            "train": str(data / f"{job.train}.tsv"),
            "val": str(data / f"dev{job.suffix}.tsv"),
            "source_col": 1,
            "target_col": 2,
            "features_col": 3,
            "batch_size": BATCH,
            **job.data,
        },
        "checkpoint": {"dirpath": str(place / "checkpoints"), "monitor": "val_accuracy", "mode": "max"},
    }


def yoyodyne(command: str, place: Path, configuration: dict[str, Any], *more: str) -> None:
    """Run the host's command."""
    (place / "config.yaml").write_text(yaml.safe_dump(configuration))
    program = [str(Path(sys.executable).parent / "yoyodyne"), command, "--config", str(place / "config.yaml"), *more]
    done = subprocess.run(program, capture_output=True, text=True, env=ENVIRONMENT)
    if done.returncode:
        raise RuntimeError(f"{program}: {done.stderr[-3000:]}")


def run(job: Job, cache: Path) -> dict[str, Any]:
    """Train, and how many of the test rows' forms, and of their tags, are predicted."""
    place, data = cache / f"{job.name}-{job.seed}".replace(" ", "-"), cache / "data"
    place.mkdir(parents=True, exist_ok=True)
    for old in (place / "checkpoints").glob("*"):
        old.unlink()
    configuration = settings(job, place, data)
    yoyodyne("fit", place, configuration)
    (checkpoint,) = (place / "checkpoints").glob("*.ckpt")
    test = data / f"test{job.suffix}.tsv"
    rows = [line.split("\t") for line in test.read_text(encoding="utf-8").splitlines()]
    configuration["trainer"] = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
    configuration["data"]["predict"] = str(test)

    def predicted(name: str, *more: str) -> list[str]:
        configuration["prediction"] = {"path": str(place / name)}
        yoyodyne("predict", place, configuration, "--ckpt_path", str(checkpoint), *more)
        return (place / name).read_text(encoding="utf-8").splitlines()

    forms = predicted("forms.txt")
    weights = torch.load(checkpoint, weights_only=False)["state_dict"].values()
    figures: dict[str, Any] = {
        "form": float(np.mean([form == row[1] for form, row in zip(forms, rows, strict=True)])),
        "parameters": sum(value.numel() for value in weights),
    }
    if job.model == OURS:
        tags = predicted("tags.txt", "--model.init_args.predicts", "label")
        wanted = ["".join(f"[{part}]" for part in row[2].split(";")) for row in rows]
        figures["tag"] = float(np.mean([tag == right for tag, right in zip(tags, wanted, strict=True)]))
    print(job.name, job.seed, figures, flush=True)
    return figures


def prepare(cache: Path, tagged: int) -> None:
    """Write the files of all jobs."""
    data, generator = cache / "data", np.random.default_rng(0x7A6)
    rows = write(data)

    def save(name: str, of: list[tuple[str, str, str]]) -> None:
        (data / f"{name}.tsv").write_text("".join("\t".join(row) + "\n" for row in of), encoding="utf-8")

    chosen = set(generator.permutation(len(rows["train"]))[:tagged].tolist())
    save("dropped", [row for place, row in enumerate(rows["train"]) if place in chosen])
    save("kept", [row if place in chosen else (*row[:2], "") for place, row in enumerate(rows["train"])])
    for name, of in rows.items():  # the tag as symbols of the source, for what does not hear features
        save(f"{name}-joined", [(" ".join([*lemma, *tag.split(";")]), " ".join(form), tag) for lemma, form, tag in of])


def jobs(parts: list[str], seeds: int, tagged: int) -> list[Job]:
    """All trainings."""
    trainings, interval = [], 3200 // tagged
    joined = {"source_sep": " ", "target_sep": " ", "features_col": 0}
    for seed in range(seeds):
        if "untagged" in parts:
            trainings.append(Job("kept", seed, "kept", OURS, init=ours()))
            trainings.append(Job("dropped", seed, "dropped", OURS, interval, init=ours()))
        if "tagged" in parts:
            trainings.append(Job("plug-in", seed, "train", OURS, init=ours()))
            trainings.append(
                Job("SoftAttentionGRUModel", seed, "train", "yoyodyne.models.SoftAttentionGRUModel", init=theirs(True))
            )
            trainings.append(Job("GRUModel", seed, "train", "yoyodyne.models.GRUModel", init=theirs(True)))
            name, model = "GRUModel, tags as symbols of the source", "yoyodyne.models.GRUModel"
            trainings.append(
                Job(name, seed, "train-joined", model, init=theirs(False), data=joined, suffix="-joined", longer=4)
            )
    return trainings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["untagged", "tagged"])
    parser.add_argument("--cache", type=Path, default=Path(".cache/inflection"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tagged", type=int, default=320, help="Rows whose tag is kept, of 3,200.")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    prepare(arguments.cache, arguments.tagged)
    todo = jobs(arguments.parts, arguments.seeds, arguments.tagged)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda job: run(job, arguments.cache), todo))
    table: dict[str, dict[str, list[float]]] = {}
    for job, figures in zip(todo, results, strict=True):
        for what, value in figures.items():
            table.setdefault(job.name, {}).setdefault(what, []).append(value)
    for name, of in table.items():
        shown = (
            f"{what} {100 * np.mean(values):.1f} ({', '.join(f'{100 * value:.1f}' for value in values)})"
            for what, values in of.items()
            if what != "parameters"
        )
        print(f"{name}: {'; '.join(shown)}")
    for part in arguments.parts:
        names = (
            ("kept", "dropped") if part == "untagged" else [name for name in table if name not in ("kept", "dropped")]
        )
        add_result(arguments.results, "inflection", part, {name: table[name] for name in names})
    print(json.dumps(table))


if __name__ == "__main__":
    main()
