"""Administration pages; Django imports this package, which registers those of all modules."""

from registry_control.gc.admin import collection, explanation, retention

__all__ = ["collection", "explanation", "retention"]
