"""Errors of services, in the terms of the v1 API. Only `rest.errors` renders them."""

from http import HTTPStatus
from typing import ClassVar


class ServiceError(Exception):
    """A service rejects a request. The message is for people."""

    status: ClassVar[HTTPStatus] = HTTPStatus.BAD_REQUEST
    type: ClassVar[str] = "invalid_arguments"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def fields(self) -> dict[str, object]:
        """Fields of the response body besides `type` and `message`."""
        return {}


class InvalidArgument(ServiceError):
    """An argument is malformed, missing, or breaks a rule."""

    def __init__(self, argument: str, help_message: str, *, reason: str = "format") -> None:
        super().__init__("invalid argument(s)")
        self.argument, self.help_message, self.reason = argument, help_message, reason

    def fields(self) -> dict[str, object]:
        """The argument, a reason from the API's list, and a help message."""
        detail = {
            "argument_name": self.argument,
            "reason": self.reason,
            "help_message": self.help_message,
        }
        return {"details": [detail]}


class DeniedAuthentication(ServiceError):
    """The credentials are missing or invalid. `method` and `reason` are values of the API's lists."""

    status = HTTPStatus.UNAUTHORIZED
    type = "denied_authentication"

    def __init__(self, reason: str, help_message: str, *, method: str = "api_key") -> None:
        super().__init__("authentication is denied")
        self.reason, self.help_message, self.method = reason, help_message, method

    def fields(self) -> dict[str, object]:
        """The authentication method, the reason of the failure, and a help message."""
        return {"method": self.method, "reason": self.reason, "help_message": self.help_message}


class PermissionsDenied(ServiceError):
    """The caller may see the resource but not perform this action on it."""

    status = HTTPStatus.FORBIDDEN
    type = "permissions_denied"

    def __init__(self, action: str, resource: str) -> None:
        super().__init__("insufficient permissions")
        self.action, self.resource = action, resource

    def fields(self) -> dict[str, object]:
        """The action and the resource."""
        return {"details": [{"action": self.action, "resource": self.resource}]}


class _AboutResource(ServiceError):
    def __init__(self, resource: str, resource_id: object, message: str) -> None:
        super().__init__(message)
        self.resource, self.resource_id = resource, str(resource_id)

    def fields(self) -> dict[str, object]:
        return {"resource": self.resource, "resource_id": self.resource_id}


class NotFound(_AboutResource):
    """The resource does not exist, or the caller may not see it."""

    status = HTTPStatus.NOT_FOUND
    type = "not_found"

    def __init__(self, resource: str, resource_id: object) -> None:
        super().__init__(resource, resource_id, f"{resource.capitalize()} was not found")


class UnknownRegion(_AboutResource):
    """The path names a region that this installation does not serve."""

    status = HTTPStatus.NOT_FOUND
    type = "not_found"

    def __init__(self, region: str, served: str) -> None:
        super().__init__("region", region, f"Region was not found: this registry serves {served}")


class AlreadyExists(_AboutResource):
    """The name is in use."""

    status = HTTPStatus.CONFLICT
    type = "already_exists"

    def __init__(self, resource: str, resource_id: object, help_message: str) -> None:
        super().__init__(resource, resource_id, f"{resource.capitalize()} already exist")
        self.help_message = help_message

    def fields(self) -> dict[str, object]:
        """Scaleway's JavaScript client requires all three fields."""
        return {**super().fields(), "help_message": self.help_message}


class InUse(_AboutResource):
    """It cannot be deleted while other resources depend on it; the message names them."""

    status = HTTPStatus.CONFLICT
    type = "precondition_failed"


class TransientState(_AboutResource):
    """The resource is being deleted: only DELETE is accepted."""

    status = HTTPStatus.CONFLICT
    type = "transient_state"

    def __init__(self, resource: str, resource_id: object, current_state: str) -> None:
        super().__init__(resource, resource_id, "resource is in a transient state")
        self.current_state = current_state

    def fields(self) -> dict[str, object]:
        """The current state."""
        return {**super().fields(), "current_state": self.current_state}


class Locked(_AboutResource):
    """An administrator made the resource read-only."""

    status = HTTPStatus.LOCKED
    type = "locked"

    def __init__(self, resource: str, resource_id: object) -> None:
        super().__init__(resource, resource_id, f"{resource} is locked")
