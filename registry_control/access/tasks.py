"""The background tasks of the auth service."""

from datetime import timedelta

from registry_control.access import services
from registry_control.common.background import Queue, background_task


@background_task(name="access.rotate_signing_keys", queue=Queue.FAST, every=timedelta(hours=1))
def rotate_signing_keys() -> bool:
    """Create a new signing key once a month; the previous one verifies tokens until they expire."""
    services.rotate_signing_keys()
    return False
