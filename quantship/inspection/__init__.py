"""What is in a model file: ONNX from anywhere, checkpoints, and files of ``quantship.save``."""
