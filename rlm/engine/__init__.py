"""The engine: batches, compiled training steps, the optimizer, and recurrences over blocks of seeds."""
