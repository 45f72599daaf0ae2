"""Block reconstruction: what is learned, from which losses, on which batches."""
