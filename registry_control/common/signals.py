"""Events that a lower app reports and an upper app acts on."""

from typing import Final

from django.dispatch import Signal

deletion_started: Final = Signal()
"""A namespace, image or tag was marked `deleting` in the current transaction; the sender is its model."""

manifests_removed: Final = Signal()
"""The worker deleted `count` manifests of deleted images, and the current transaction ends after that."""
