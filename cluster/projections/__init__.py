"""What every node derives from effects: ready queues and metrics. Rebuilt from state."""
