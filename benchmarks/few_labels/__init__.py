"""Few labels and many rows without: this tool and what it competes with, over many sets.

python -m benchmarks.few_labels [--folder DIR] [--sets NAME ...] [--seeds 5] [--labels 10 50] [--backend jax]
"""
