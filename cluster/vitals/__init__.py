"""What a node knows of its own health: its event loop, its memory, its descriptors, its last words.

Observes and tells. Decides nothing about jobs, and imports nothing of the product.
"""

from .vitals import Vitals

__all__ = ["Vitals"]
