"""Administration pages; Django imports this package, which registers those of both modules."""

from registry_control.gc.admin import collection, retention

__all__ = ["collection", "retention"]
