"""Images: `images` feeds calibration and evaluation, `digits` and `shapes` are the tasks of the bundled models."""
