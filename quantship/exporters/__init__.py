"""Lowerings: the integers of a checkpoint as ONNX graphs."""
