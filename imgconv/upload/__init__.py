"""Policy of uploads: part sizes, buffers, retries, concurrency, resuming, verification."""
