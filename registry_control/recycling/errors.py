"""Errors of restoring."""

from http import HTTPStatus

from registry_control.common.errors import ServiceError


class CannotRestore(ServiceError):
    """Something that it needs is not there; the message says what to do."""

    status = HTTPStatus.CONFLICT
    type = "precondition_failed"

    def __init__(self, entry_id: object, reason: str) -> None:
        super().__init__(f"it cannot be restored: {reason}")
        self.entry_id = str(entry_id)

    def fields(self) -> dict[str, object]:
        """The entry."""
        return {"resource": "entry", "resource_id": self.entry_id}
