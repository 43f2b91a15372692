"""Checks of a run: that both twins compute the same, and what the gradient estimators of a missing label cost."""
