"""Quantize any module of PyTorch from Python: what ``import quantship`` offers beside recipes."""
