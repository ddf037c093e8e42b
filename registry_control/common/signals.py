"""Events that a lower app reports and an upper app acts on."""

from typing import Final

from django.dispatch import Signal

deletion_started: Final = Signal()
"""A namespace, image or tag was marked `deleting` in the current transaction; the sender is its model."""
