"""What it will take, and what that costs: operators, latency, memory, energy, fit, ownership."""
