"""Sweeps: which fields of the configuration do best on the validation rows."""
