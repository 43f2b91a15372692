"""The model in scikit-learn's conventions."""
