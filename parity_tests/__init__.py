"""The proof that the twins agree: an independent oracle, shared problems, and the checks between them."""
