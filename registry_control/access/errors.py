"""Errors of authentication."""

from enum import StrEnum


class Reason(StrEnum):
    """The reasons of `denied_authentication` in the v1 API."""

    INVALID_ARGUMENT = "invalid_argument"
    NOT_FOUND = "not_found"
    EXPIRED = "expired"


class BadCredentials(Exception):
    """The secret key or token is invalid, unknown or expired."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class InvalidRefreshToken(BadCredentials):
    """The refresh token is malformed, or its API key was deleted or has expired."""
