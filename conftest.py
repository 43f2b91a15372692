"""Shapes and types of every annotated function are checked while tests run; JAX keeps what it has compiled."""

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
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checks of shapes and types, for tests that only repeat steps that other tests take with them."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)
