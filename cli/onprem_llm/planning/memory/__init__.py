"""Does it fit: weights, KV cache and overhead on each GPU, from a model's own files. All sizes are bytes."""
