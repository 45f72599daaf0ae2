"""Images: sources of batches for calibration and evaluation, and the tasks of the bundled models."""
