"""Errors of replication that the API returns."""

from typing import Final

from registry_control.common.errors import InvalidArgument

EGRESS_SETTING: Final = "REGISTRY_EGRESS_ALLOW"


class ForbiddenAddress(InvalidArgument):
    """The address of a target must not be connected to; the sentence names the setting that allows it."""

    def __init__(self, sentence: str) -> None:
        super().__init__("url", sentence, reason="constraint")
