"""What `scripts.bench` measures: one subject a file, and the clock they share."""
