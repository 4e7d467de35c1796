"""What to buy: demand, queueing, sizing."""
