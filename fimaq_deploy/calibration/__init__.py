"""The PyTorch stage: scales and roundings learned on the grid that the target executes. Torch lives here."""

from fimaq_deploy.calibration.quantize import QuantizedModel, load_quantized, quantize

__all__ = ["QuantizedModel", "load_quantized", "quantize"]
