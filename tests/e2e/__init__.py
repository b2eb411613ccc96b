"""Real processes: few, slow, and judged by their outcome."""
