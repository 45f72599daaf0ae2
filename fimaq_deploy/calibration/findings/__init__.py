"""What is known of a quantized model once it is learned."""
