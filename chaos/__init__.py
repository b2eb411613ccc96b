"""Ways to break a cluster on purpose: `sim/` in one deterministic process, `live/` on real ones."""
