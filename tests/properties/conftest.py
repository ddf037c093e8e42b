"""Properties have no deadline: how long one example takes says more of the machine than of the code."""

from hypothesis import settings

settings.register_profile("stowage", deadline=None)
settings.load_profile("stowage")
