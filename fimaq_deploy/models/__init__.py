"""Models: a name or a factory in, a module with its weights, preprocessing and family out. Imports no torch."""
