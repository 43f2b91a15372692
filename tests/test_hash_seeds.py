"""What the JAX twin computes and compiles does not depend on `PYTHONHASHSEED`, on which the order of sets depends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import dataclasses, hashlib, json, os
from toy import toy_config, toy_table
from seqssvae.data.prepare import prepare_table
from seqssvae.inference.evaluate import evaluate
from seqssvae.training.fit import fit
from seqssvae_jax.backend import JaxBackend

config = toy_config()
training = dataclasses.replace(config.training, max_steps=3, evaluation_interval=3)
objective = dataclasses.replace(config.objective, **json.loads(os.environ["OBJECTIVE"]))
config = dataclasses.replace(config, training=training, objective=objective)
prepared = prepare_table(toy_table(), config)
backend = JaxBackend(config, prepared.schema.dimensions)
state = fit(config, prepared.training, prepared.validation, backend).state
digest = hashlib.sha256(b"".join(value.tobytes() for value in state.weights.values())).hexdigest()
programs = sorted(name for name in os.listdir(os.environ["JAX_COMPILATION_CACHE_DIR"]) if name.endswith("-cache"))
print(json.dumps([digest, programs]))
"""


@pytest.mark.parametrize(
    ("objective", "seeds"),
    [
        ({"gradient_estimator": "top_k", "k": 1}, 2),
        pytest.param({"gradient_estimator": "top_k", "k": 1}, 4, marks=pytest.mark.thorough),
        pytest.param({"batching": "alternate"}, 3, marks=pytest.mark.thorough),
    ],
    ids=str,
)
def test_bits_and_programs_are_the_same_whatever_the_hash_seed(tmp_path, objective, seeds):
    printed = []
    for seed in range(seeds):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": str(seed),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "OBJECTIVE": json.dumps(objective),
        }
        done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed.append(json.loads(done.stdout.splitlines()[-1]))
    assert all(other == printed[0] for other in printed)
