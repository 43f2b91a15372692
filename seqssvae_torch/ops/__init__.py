"""What takes most of a training step, as functions: recurrences, log-probabilities of symbols, and their products.

Each has a reference that reads like its equations, and an implementation that is fast; `implementations.py` chooses.
"""

from seqssvae_torch.ops.cells import CellWeights, State, cell_step, fold, unfold
from seqssvae_torch.ops.convolution import max_over_windows, windows
from seqssvae_torch.ops.implementations import takes_few_calls, use_implementation
from seqssvae_torch.ops.pooling import pool
from seqssvae_torch.ops.products import linear, linear_of_labels, rounded_products
from seqssvae_torch.ops.recurrence import recurrence
from seqssvae_torch.ops.symbol_log_probs import symbol_log_probs
from seqssvae_torch.ops.tanh import tanh, tanh_of_sum

__all__ = [
    "CellWeights",
    "State",
    "cell_step",
    "fold",
    "linear",
    "linear_of_labels",
    "max_over_windows",
    "pool",
    "recurrence",
    "rounded_products",
    "symbol_log_probs",
    "takes_few_calls",
    "tanh",
    "tanh_of_sum",
    "unfold",
    "use_implementation",
    "windows",
]
