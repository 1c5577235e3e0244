"""One transformer block at a time: memory does not grow with the depth of a model."""
