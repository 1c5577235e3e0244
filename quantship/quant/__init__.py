"""Quantization: schemes, numerics, fake-quantized layers, checkpoints."""
