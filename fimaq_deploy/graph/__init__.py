"""ONNX graphs, whoever wrote them: read, edited and judged. No torch here."""
