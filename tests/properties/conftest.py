"""Properties have no deadline: the duration of one example depends on the machine more than on the code."""

from hypothesis import settings

settings.register_profile("stowage", deadline=None)
settings.load_profile("stowage")
