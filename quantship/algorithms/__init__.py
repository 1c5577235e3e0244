"""The mathematics of one quantization method a file."""
