"""Semi-supervised variational autoencoders for sequences: what the PyTorch and the JAX twin share."""
