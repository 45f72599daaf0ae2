"""Builds over HTTP: the Open Inference Protocol v2, batched as requests come, and a page to try it. No torch."""
