"""JAX / NumPyro twin."""
