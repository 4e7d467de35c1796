"""The network itself: model, router, losses, executors, training, weights."""
