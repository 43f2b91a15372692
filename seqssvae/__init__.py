"""Semi-supervised variational autoencoders for sequences: what the PyTorch and the JAX twin share."""

from seqssvae.backend import get_backend
from seqssvae.estimator.sequence_ssvae import SequenceSSVAE

__all__ = ["SequenceSSVAE", "get_backend"]
