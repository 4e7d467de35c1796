"""What it took: runs the real network and records every depth."""
