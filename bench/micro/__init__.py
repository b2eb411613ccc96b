"""What single steps cost, in microseconds of CPU time per operation, in one process."""
