"""A long time under load and faults: what a node takes of its machine must stop growing."""
