"""Events that a lower app reports and an upper app acts on."""

from typing import Final

from django.dispatch import Signal

deletion_started: Final = Signal()
"""A namespace, image or tag was marked `deleting` in the current transaction; the sender is its model."""

namespace_deletion_requested: Final = Signal()
"""A namespace, whose row is locked, is about to be marked `deleting`; a receiver raises an error to refuse.

Argument: `namespace`.
"""

recycled: Final = Signal()
"""A deletion left an entry in the recycle bin, in the current transaction; the sender is its model."""

collection_requested: Final = Signal()
"""A run of garbage collection was requested in the current transaction."""

manifests_removed: Final = Signal()
"""The worker deleted `count` manifests of deleted images, and the current transaction ends after that."""

content_pushed: Final = Signal()
"""A push stored a new manifest or set tags, in the current transaction; the sender is the model of manifests.

Arguments: `image_id`, `digest` of the manifest, and `tags`: the names of the tags that were created or moved.
"""

content_healed: Final = Signal()
"""A push replaced the content of the damaged or missing blob `blob_id`; the sender is the model of blobs."""

storage_prepared: Final = Signal()
"""A process is about to use the storage `store` for the first time: a receiver raises `StorageError` if it is
likely not that of the database.
"""

findings_requested: Final = Signal()
"""Someone asks why the disk has not shrunk; a receiver returns its `Finding`s. The sender is `Finding`."""

clock_set_back: Final = Signal()
"""The clock of the database was set back: a receiver corrects times of its rows that lie in the future, so
that no work waits for them. A correction that is interrupted is repeated. The sender is `ClockWatch`.
"""

execution_started: Final = Signal()
"""An execution of a replication rule was created in the current transaction; the sender is its model."""
