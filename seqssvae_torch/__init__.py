"""PyTorch / Pyro twin."""
