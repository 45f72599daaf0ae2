"""Grids, fake quantizers, roundings, and the layers that are built from them."""
