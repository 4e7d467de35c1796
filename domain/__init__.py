"""The nouns of the suite, their units, the catalogue, and the one door to `results/`."""
