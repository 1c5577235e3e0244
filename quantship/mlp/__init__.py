"""A multi-layer perceptron that classifies features, kept in directories as transformers' are."""

MODEL_TYPE = "quantship_mlp"
"""What ``config.json`` calls it."""
