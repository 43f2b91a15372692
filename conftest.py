"""Shapes and types of every annotated function are checked while tests run; JAX keeps what it has compiled."""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import config, install_import_hook

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Without fusion emitters and LLVM's optimisations XLA takes a quarter of the time to compile these tiny programs.
QUICK = (
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
)
if not os.environ.get("SEQSSVAE_DEVICE"):
    os.environ.setdefault("XLA_FLAGS", " ".join(QUICK))
CHECKED = ["seqssvae.data", "seqssvae_torch", "seqssvae_jax"]
install_import_hook(CHECKED, "beartype.beartype")

# The same examples in every run, and none fails for being slow on a busy machine.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=40)
settings.register_profile("thorough", settings.get_profile("repeatable"), max_examples=100)
settings.load_profile("repeatable")


LONG = (
    "test_planted_faults",
    "test_controls",
    "test_yoyodyne",
    "test_ladder_float64",
    "test_sources",
    "test_generated",
    "test_gradient_estimators",
    "test_trajectories",
    "test_ladder_float32",
    "test_verify",
    "test_kills",
    "test_sharing",
    "test_programs",
    "test_label_objectives",
    "test_recipes",
    "test_label_plates",
    "test_backends",
    "test_estimator_processes",
    "test_gradient_estimators_bias",
    "test_processes",
    "test_hash_seeds",
    "test_symbol_log_probs",
    "test_gradient_comparison",
    "test_estimator_use",
    "test_estimator_training",
)
"""The files that take longest, which begin first, so that all workers end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of long files in front; all others stay in their order."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


def pytest_collection_finish() -> None:
    """Have the collector of circular garbage come less often, and leave alone what was imported and lives to the end.

    Else it takes a tenth of all time: it would go through both frameworks again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checks of shapes and types, for tests that only repeat steps that other tests take with them."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)
