"""How long each fault keeps a cluster under load from taking jobs and from starting them."""
