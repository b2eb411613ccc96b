"""Real processes: start a cluster, hurt it, judge what is left."""
