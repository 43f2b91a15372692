"""Recipes: what learns from few labels beside the network, and what chooses between them by cross-validation."""
