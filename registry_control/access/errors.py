"""How proving who one is can fail."""

from enum import StrEnum


class Reason(StrEnum):
    """In the words of the v1 API's `denied_authentication`."""

    INVALID_ARGUMENT = "invalid_argument"
    NOT_FOUND = "not_found"
    EXPIRED = "expired"


class BadCredentials(Exception):
    """The secret key or token proves nobody."""

    def __init__(self, why: Reason) -> None:
        super().__init__(why)
        self.why = why


class InvalidRefreshToken(BadCredentials):
    """The refresh token of an earlier login proves nobody, or no longer."""
