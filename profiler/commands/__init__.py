"""The commands of `python -m profiler`, by what a person is doing. Torch is imported inside them."""
