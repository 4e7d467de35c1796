"""Faults that are put in on purpose, and whether anything measured is lost: `python -m tests.faults`."""
