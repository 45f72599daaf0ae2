"""ONNX files that others made: from a file and images to a quantized one, through ONNX Runtime."""
