"""A model as a chain of stages, the plan of its layers, and the copy that is quantized."""
