"""Pictures of what a model learned, and a page of them all."""
