"""The PyTorch stage: scales and roundings learned on the grid that the target executes. Torch lives here."""
