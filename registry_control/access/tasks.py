"""The worker's entry points of the auth service."""

from celery import shared_task

from registry_control.access import services


@shared_task(name="access.rotate_signing_keys")
def rotate_signing_keys() -> None:
    """Make a new signing key once a month; tokens of the last one stay good until they expire."""
    services.rotate_signing_keys()
