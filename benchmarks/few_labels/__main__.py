"""Runs the cells that are not in the file of results yet, and prints the table."""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from benchmarks.few_labels.cells import Cell, run
from benchmarks.few_labels.sets import names
from benchmarks.few_labels.tables import print_tables, write_plot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="A folder with further sets, NAME.tsv each")
    parser.add_argument("--sets", nargs="+", help="Names of sets; all by default")
    parser.add_argument("--labels", nargs="+", type=int, default=[10, 50])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--twins", nargs="+", default=["jax"])
    parser.add_argument("--network-seeds", type=int, default=1, help="Seeds for which the network is trained, too")
    parser.add_argument("--output", type=Path, default=Path("runs/few_labels.jsonl"))
    parser.add_argument("--plot", type=Path, help="An SVG file to draw the first twin's results into")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    done = []
    if arguments.output.exists():
        done = [json.loads(line) for line in arguments.output.read_text().splitlines()]
    known = {(one["set"], one["labels"], one["seed"], one["twin"]) for one in done}
    sets = arguments.sets or names(arguments.folder)
    cells: list[Cell] = [
        (name, labels, seed, twin)
        for twin in arguments.twins
        for seed in range(arguments.seeds)
        for name in sets
        for labels in arguments.labels
        if (name, labels, seed, twin) not in known
    ]
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(run, cell, arguments.folder, arguments.network_seeds) for cell in cells]
        for task in as_completed(tasks):
            done.append(task.result())
            with arguments.output.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
            print(*(done[-1][key] for key in ("set", "labels", "seed", "twin", "accuracy")), flush=True)
    print_tables(done)
    if arguments.plot is not None:
        write_plot([one for one in done if one["twin"] == arguments.twins[0]], arguments.plot)


if __name__ == "__main__":
    main()
