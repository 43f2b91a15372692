"""What very many sequences cost on paper: floating-point operations, bytes and dependent steps of one pass over them.

    python -m benchmarks.paper [--rows 1e9] [--accelerators 1 8 64]

Every time is a lower bound by one resource alone: what the operations, the bytes, the chain of dependent steps or the
exchange of gradients take if nothing else does. The greatest of them is the first bottleneck.
"""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.flops import necessary, total
from seqssvae.config import DecoderConfig, EncoderConfig, ModelConfig
from seqssvae.config.presets import PRESETS
from seqssvae.parameters import GATES, parameter_shapes

FLOPS, BANDWIDTH, LINK = 67e12, 3.35e12, 450e9
"""Of an H100 SXM: float32 operations and bytes of memory a second, and bytes to other accelerators, one way.

https://www.nvidia.com/en-us/data-center/h100/ (67 TFLOPS FP32; 3.35 TB/s; NVLink 900 GB/s both ways).
"""
STEP_SECONDS = 5e-6
"""An assumption: one step of a recurrence, which waits for the one before, however few rows it has."""
EXCHANGE_SECONDS = 30e-6
"""An assumption: the least that an all-reduce takes, however few bytes it has."""


class Job(NamedTuple):
    """A model and its rows.

    Args:
        name: What it is.
        model: The networks.
        labels: K.
        steps: T, END included.
        vocabulary: V.
    """

    name: str
    model: ModelConfig
    labels: int
    steps: int
    vocabulary: int


JOBS = (
    Job("peptides' preset", PRESETS["peptides"].ssvae().model, 2, 51, 24),
    Job(
        "words, 12 labels",
        ModelConfig(encoder=EncoderConfig(hidden_size=256), decoder=DecoderConfig(hidden_size=256)),
        *(12, 32, 10_000),
    ),
)


class Price(NamedTuple):
    """Hours that one pass takes at least, by each resource.

    Args:
        compute: Matrix products.
        memory: States and activations, written and read once on each way.
        chain: Steps that wait for the step before.
        exchange: Gradients of all accelerators added up after each step of the optimiser.
    """

    compute: float
    memory: float
    chain: float
    exchange: float


def state_bytes(job: Job, rows: int) -> int:
    """Bytes of states, gates and logits of so many rows, each written and read once forward and once back."""
    model, columns = job.model, job.labels * rows
    encoder = (2 if model.encoder.bidirectional else 1) * (1 + GATES[model.cell]) * model.encoder.hidden_size * rows
    runs = rows if model.decoder.conditioning == "output" else columns
    decoder = (1 + GATES[model.cell]) * model.decoder.hidden_size * runs
    return 4 * 4 * job.steps * (encoder + decoder + columns * (model.decoder.hidden_size + job.vocabulary))


def weight_bytes(job: Job) -> int:
    """Bytes of all weights in float32."""
    shapes = parameter_shapes(job.model, job.vocabulary, job.labels).values()
    return 4 * sum(_size(shape) for shape in shapes)


def _size(shape: Sequence[int]) -> int:
    size = 1
    for part in shape:
        size *= part
    return size


def price(job: Job, rows: float, batch: int, accelerators: int) -> Price:
    """What a pass over so many unlabelled rows costs, each accelerator having a batch of its own at each step."""
    steps = rows / (batch * accelerators)
    share = 2 * (accelerators - 1) / accelerators  # of the bytes, by a ring (Patarasuk & Yuan 2009)
    compute = total(necessary(job.model, job.labels, batch, job.steps, job.vocabulary)) / FLOPS
    memory = (state_bytes(job, batch) + 7 * weight_bytes(job)) / BANDWIDTH  # Adam reads four and writes three
    chain = 4 * job.steps * STEP_SECONDS  # encoder and decoder, forward and back
    exchange = EXCHANGE_SECONDS + share * weight_bytes(job) / LINK if accelerators > 1 else 0.0
    return Price(*(steps * seconds / 3600 for seconds in (compute, memory, chain, exchange)))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=1e9)
    parser.add_argument("--accelerators", type=int, nargs="+", default=[1, 8, 64])
    arguments = parser.parse_args()
    for job in JOBS:
        one = total(necessary(job.model, job.labels, 1, job.steps, job.vocabulary))
        print(f"{job.name}: K {job.labels}, T {job.steps}, V {job.vocabulary}; {one / 1e6:.1f} MFLOP a row,", end=" ")
        print(f"{state_bytes(job, 1) / 1e3:.0f} kB of states a row, {weight_bytes(job) / 1e6:.1f} MB of weights")
        names = "".join(f"{name:>10}" for name in Price._fields)
        print(f"{'rows a step':>12} {'accelerators':>12}{names}  first")
        for batch in (64, 1024, 16_384):
            for count in arguments.accelerators:
                hours = price(job, arguments.rows, batch, count)
                first = Price._fields[hours.index(max(hours))]
                print(f"{batch:>12} {count:>12}" + "".join(f"{value:>10.2f}" for value in hours) + f"  {first}")


if __name__ == "__main__":
    main()
