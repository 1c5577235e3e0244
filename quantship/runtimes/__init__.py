"""What serves a model: PyTorch and onnxruntime behind one protocol."""
