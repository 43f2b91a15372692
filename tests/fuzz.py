"""Gives each reader files that were changed at random, and counts what became of them.

    PYTHONPATH=. python tests/fuzz.py --count 100000

A trial may end in a result or in an error of the project that is one sentence. Nothing else will do: another exception,
a process that ends, 200 MB more than before, or 20 seconds. Trials are numbered, and `--first N --count 1` repeats one.
"""

import argparse
import gzip
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from fake_backend import FakeBackend
from toy import NAMES, SETTINGS, TEXTS, make_estimator, toy_config, toy_table
from toy_runs import latest, train, with_training

import seqssvae.backend
from seqssvae.config import DataConfig
from seqssvae.config.fields import check_fields
from seqssvae.config.settings import from_dict, read_yaml, to_yaml
from seqssvae.data.files import read_table
from seqssvae.data.prepare import prepare_files
from seqssvae.data.prepare_directory import prepare_directory
from seqssvae.errors import UserError
from seqssvae.estimator.sequence_ssvae import SequenceSSVAE
from seqssvae.recipes.named import with_recipe
from seqssvae.runs.files import read_metrics
from seqssvae.runs.run import RunDirectory

SECONDS, BYTES = 20, 200 << 20
PART = 250
"""Trials of one process."""
TOKENS = [b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n", b"\t", b'"', b",", b"[" * 5000, b'{"a":']
TOKENS += [b"1e999", b"-1", b"9" * 30, b"9" * 5000, b"null", b"true", b"\\ud800", b"\x1f\x8b", b">", b": ", b"- "]
TOKENS += [b"&a *a", b"{}", b"NaN"]
VALUES = [None, True, -1, 0, 2**31, 10**30, 1.5, -0.0, "", "a", "\ud800", "0" * 99, [], [[]], {}, {"a": 1}, ["a", "a"]]

Reader = Callable[[Path], object]


def changed(content: bytes, generator: random.Random) -> bytes:
    """The content with a few changes: of bits, of places, of what readers know."""
    data = bytearray(content)
    for _ in range(generator.choice((1, 1, 1, 2, 4, 16))):
        place = generator.randrange(len(data) + 1)
        end = min(len(data), place + generator.choice((1, 2, 4, 40)))
        match generator.randrange(8):
            case 0 if data:
                data[place % len(data)] ^= 1 << generator.randrange(8)
            case 1:
                del data[place:end]
            case 2:
                data[place:place] = generator.choice(TOKENS)
            case 3:
                data[place:end] = generator.choice(TOKENS)
            case 4:
                data[place:end] = generator.randbytes(end - place)
            case 5:
                data[place:place] = data[place:end] * generator.choice((1, 3))
            case 6:
                other = generator.randrange(len(data) + 1)
                data[place:end] = data[other : other + end - place]
            case 7 if generator.random() < 0.3:
                del data[place:]
    return bytes(data)


def changed_values(content: bytes, generator: random.Random) -> bytes:
    """A JSON document, of which one value is another; bytes are changed where it is none."""
    try:
        document = json.loads(content)
    except ValueError:
        return changed(content, generator)
    place, key = {"": document}, ""
    while isinstance(place[key], (dict, list)) and place[key] and (key == "" or generator.random() < 0.7):
        place = place[key]
        key = generator.choice(sorted(place) if isinstance(place, dict) else range(len(place)))
    if generator.random() < 0.2 and key != "":
        del place[key]
    else:
        place[key] = generator.choice(VALUES)
    return json.dumps(document).encode()


def odd_parquet(path: Path, generator: random.Random) -> None:
    """A Parquet file with columns of types that a reader may not expect."""
    columns = [
        pa.array(["ab", None, "cd"]),
        pa.array([1, 2, None]),
        pa.array([0.5, float("nan"), 1e300]),
        pa.array([["a", "b"], [], None]),
        pa.array([[1], [None], []]),
        pa.array([b"ab", b"\xff", None]),
        pa.array(["x", "y", "x"]).dictionary_encode(),
        pa.array([None, None, None]),
        pa.array([True, False, None]),
        pa.array([{"a": 1}, None, {"a": 2}]),
        pa.array([0, 1, 2], pa.timestamp("ns")),
        pa.array([1, 2, 3], pa.decimal128(5, 2)),
    ]
    names = ["seq", "label", "id"] if generator.random() < 0.8 else ["seq", "seq", ""]
    pa.parquet.write_table(pa.table([generator.choice(columns) for _ in names], names), path)


def rows_readers(place: Path) -> list[tuple[Path, Reader]]:
    rows = [("ab", "x", "1"), ("b,\"c'", "", "2"), ("é語", "y", ""), (" d", "x", "3")] * 3
    text = "".join("\t".join(row) + "\n" for row in rows)
    contents = {
        "rows.tsv": text,
        "header.tsv": "seq\tlabel\tid\n" + text,
        "rows.csv": "".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\r\n" for row in rows),
        "rows.fa": "".join(f">{name or 'r'} {label}\nacgt\nac\n" for _, label, name in rows),
        "rows.jsonl": "".join(json.dumps(dict(zip(("seq", "label", "id"), row, strict=True))) + "\n" for row in rows),
    }
    files = []
    for name, content in contents.items():
        files += [place / name, place / f"{name}.gz", place / f"{name}.zst"]
        files[-3].write_text(content)
        files[-2].write_bytes(gzip.compress(content.encode()))
        with pa.CompressedOutputStream(str(files[-1]), "zstd") as stream:
            stream.write(content.encode())
    table = {name: [row[column] for row in rows] for column, name in enumerate(("seq", "label", "id"))}
    pa.parquet.write_table(pa.table(table), place / "rows.parquet")
    (place / "labels.tsv").write_text("1\tx\n2\ty\n3\tx\n")
    configs = [
        DataConfig(),
        DataConfig(sequence_column="seq", label_column="label", id_column="id"),
        DataConfig(source_column=3, separator=" "),
        DataConfig(label_column=0, id_column=3, header=True),
        DataConfig(group_column=3, max_length=3),
        DataConfig(labels_file=str(place / "labels.tsv"), id_column=3),
    ]

    def read(path: Path) -> None:
        for data in configs:
            try:
                read_table(path, data, texts=True)
            except UserError as error:
                one_sentence(error)

    def labels(path: Path) -> None:
        read_table(place / "rows.tsv", DataConfig(labels_file=str(path), id_column=3))

    def prepare(path: Path) -> None:
        prepare_files(from_dict({**SETTINGS, "data": {"train": str(path)}}))

    of_rows = [(file, reader) for file in [*files, place / "rows.parquet"] for reader in (read, prepare)]
    return [*of_rows, (place / "labels.tsv", labels)]


def configuration_readers(place: Path) -> list[tuple[Path, Reader]]:
    (place / "whole.yaml").write_text(to_yaml(toy_config()))
    (place / "some.yaml").write_text(
        "# mine\ndata: {train: a.tsv, labels: [x, y]}\nmodel:\n  encoder: {widths: [1, 2]}\n"
    )
    (place / "some.json").write_text(json.dumps(SETTINGS))

    def read(path: Path) -> None:
        settings = read_yaml(path)
        check_fields(settings, path)
        from_dict(with_recipe("auto", settings), path)

    return [(place / name, read) for name in ("whole.yaml", "some.yaml", "some.json")]


def run_readers(place: Path) -> list[tuple[Path, Reader]]:
    """The files of a run with all that one can have, without checksums and with them."""
    make_estimator(recipe="auto", missing="?").fit(TEXTS, [*NAMES[:40], *"?" * 20]).save(place / "run")
    old = Path(shutil.copytree(latest(place / "run"), place / "old"))
    (old / "manifest.json").unlink()
    train(place / "part", with_training(toy_config(), evaluation_interval=4))

    def read(path: Path) -> None:
        SequenceSSVAE.load(old).predict_proba(TEXTS[:2])
        read_metrics(old)

    def checked(path: Path) -> None:
        directory = RunDirectory(place / "part")
        directory.open()
        directory.read_checkpoint()

    new = [file for file in (place / "part").rglob("*") if file.is_file() and file.suffix == ".json"]
    return [*((file, read) for file in sorted(old.iterdir())), *((file, checked) for file in sorted(new))]


def prepared_readers(place: Path) -> list[tuple[Path, Reader]]:
    table = toy_table()
    lines = zip(table.sequences.joined(""), table.labels, strict=True)
    (place / "toy.tsv").write_text("".join(f"{text}\t{label or ''}\t{text[::-1]}\n" for text, label in lines))
    prepare_directory([str(place / "toy.tsv")], str(place / "prepared"), DataConfig(source_column=3))

    def read(path: Path) -> None:
        config = from_dict({**SETTINGS, "data": {"train": str(path.parent), "source_column": 3}})
        for corpus in prepare_files(config)[:2]:
            corpus.take(np.arange(len(corpus)))
        read_table(path.parent, config.data, texts=True)

    return [(place / "prepared" / name, read) for name in ("prepared.json", "rows.arrow")]


def yoyodyne_readers(place: Path) -> list[tuple[Path, Reader]]:
    from seqssvae.config.settings import to_dict
    from seqssvae.data.schema import build_schema
    from seqssvae_torch.yoyodyne.checkpoints import PREFIX, STATE, import_yoyodyne

    config = toy_config()
    schema, sections = build_schema(toy_table(), config.data), to_dict(config)
    weights = FakeBackend(config, schema.dimensions).get_weights()
    state = {"data": sections["data"], "networks": sections["model"], "objective": sections["objective"], "seed": 0}
    state |= {"symbols": list(schema.vocabulary.symbols), "labels": list(schema.labels.names), "source_symbols": None}
    state |= {"label_prior": list(schema.label_prior)}
    tensors = {PREFIX + name: torch.tensor(value) for name, value in weights.items()}
    torch.save({STATE: state, "state_dict": tensors, "global_step": 3}, place / "yoyodyne.ckpt")

    def read(path: Path) -> None:
        shutil.rmtree(place / "imported", ignore_errors=True)
        import_yoyodyne(path, place / "imported")

    return [(place / "yoyodyne.ckpt", read)]


MAKERS = {
    "rows": (38, rows_readers),
    "configurations": (15, configuration_readers),
    "runs": (35, run_readers),
    "prepared": (8, prepared_readers),
    "yoyodyne": (4, yoyodyne_readers),
}
"""For each kind of reader its share of the trials."""


def all_readers(place: Path) -> dict[str, list[tuple[Path, Reader]]]:
    """By kind, each file that is changed, and what reads it."""
    return {kind: make(place) for kind, (_, make) in MAKERS.items()}


def one_sentence(error: UserError) -> None:
    if "\n" in str(error):
        raise AssertionError("more than a line") from error


def trial(number: int, readers: dict[str, list[tuple[Path, Reader]]]) -> str:
    """Change a file, have it read, put it back, and return what kind of readers it was for."""
    generator = random.Random(number)
    kind = generator.choices(sorted(MAKERS), [MAKERS[name][0] for name in sorted(MAKERS)])[0]
    path, read = generator.choice(readers[kind])
    content, before = path.read_bytes(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        if path.suffix == ".parquet" and generator.random() < 0.5:
            odd_parquet(path, generator)
        elif path.suffix == ".gz" and generator.random() < 0.7:
            path.write_bytes(gzip.compress(changed(gzip.decompress(content), generator)))
        else:
            change = changed_values if path.suffix == ".json" and generator.random() < 0.6 else changed
            path.write_bytes(change(content, generator))
        signal.alarm(SECONDS)
        try:
            read(path)
        except UserError as error:
            one_sentence(error)
            return f"{kind}: one sentence"
        finally:
            signal.alarm(0)
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
            if more > BYTES:
                raise AssertionError(f"{more >> 20} MB more")
        return f"{kind}: read"
    finally:
        path.write_bytes(content)


def run_part(first: int, count: int, place: Path, readers: dict, reached: "multiprocessing.Value", tallies) -> None:
    """Make so many trials in a process of their own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(AssertionError("it takes too long")))
    tally = Counter[str]()
    for number in range(first, first + count):
        reached.value = number
        try:
            tally[trial(number, readers)] += 1
        except Exception:
            tally["FAULT"] += 1
            print(f"trial {number}:", traceback.format_exc(), file=sys.stderr, flush=True)
    tallies.put(tally)


def main() -> int:
    """Make the trials, and print how many ended how; the status is 1 if one was a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    points = [SimpleNamespace(name="fake", load=lambda: FakeBackend)]
    seqssvae.backend.entry_points = lambda group: points
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    tally, context = Counter[str](), multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        readers = all_readers(place)
        first, end = arguments.first, arguments.first + arguments.count
        while first < end:
            reached, tallies = context.Value("q", first), context.SimpleQueue()
            count = min(PART, end - first)
            process = context.Process(target=run_part, args=(first, count, place, readers, reached, tallies))
            process.start()
            process.join()
            if process.exitcode:
                print(f"trial {reached.value}: the process ended with {process.exitcode}", file=sys.stderr, flush=True)
                tally["FAULT"] += 1
                first = reached.value + 1  # what the part had before it is made again by nobody
                readers = all_readers(Path(tempfile.mkdtemp(dir=place)))
            else:
                tally += tallies.get()
                first += count
    print(dict(sorted(tally.items())))
    return int(tally["FAULT"] > 0)


if __name__ == "__main__":
    sys.exit(main())
