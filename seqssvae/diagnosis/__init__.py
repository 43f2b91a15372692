"""What a trained model makes of its labels and latents, and what is wrong with it, in sentences."""
