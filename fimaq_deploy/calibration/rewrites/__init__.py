"""Exact rewrites of a full-precision model that make it easier to quantize."""
