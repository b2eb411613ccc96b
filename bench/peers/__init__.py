"""The same work on other schedulers and queues, side by side with Quorate in one run."""
