"""Shapes and types of every annotated function are checked while tests run; JAX keeps what it has compiled."""

import os
from pathlib import Path

from hypothesis import settings
from jaxtyping import install_import_hook

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Without fusion emitters and LLVM's optimisations XLA takes a quarter of the time to compile these tiny programs.
if not os.environ.get("SEQSSVAE_DEVICE"):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0")
CHECKED = ["seqssvae.batches", "seqssvae.corpus", "seqssvae.splits", "seqssvae_torch", "seqssvae_jax"]
install_import_hook(CHECKED, "beartype.beartype")

# The same examples in every run, and none fails for being slow on a busy machine.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
