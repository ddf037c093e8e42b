"""`credentials.json`: the first API key and password, readable by the operator only.

The content is first written to a draft, synchronously, and the draft is renamed to the file: the file is
always complete.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

from registry_control.common.files import write_private
from registry_data.storage.disk import sync_folder

NAME: Final = "credentials.json"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The keys of the file, in this order."""

    control_url: str
    registry_host: str
    organization_id: str
    project_id: str
    access_key: str
    secret_key: str = field(repr=False)
    admin_username: str
    admin_password: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse the content of such a file; None if it is malformed."""
        try:
            values = json.loads(text)
            found = cls(**values)
        except (ValueError, TypeError):
            return None
        return found if all(isinstance(value, str) for value in values.values()) else None


class CredentialsFile:
    """The file in a folder. Only the process that has the startup lock may write it."""

    def __init__(self, folder: Path, name: str = NAME) -> None:
        self.path: Final = folder / name
        self._draft: Final = folder / f"{name}.draft"
        self._old: Final = folder / f"{name}.old"

    def read(self) -> Credentials | None:
        """The content of the file; None if it is missing or malformed."""
        return _read(self.path)

    def read_draft(self) -> Credentials | None:
        """The draft of a start that was killed."""
        return _read(self._draft)

    def draft(self, credentials: Credentials) -> None:
        """Write a draft durably; the file itself does not change."""
        self.discard_draft()
        write_private(self._draft, json.dumps(asdict(credentials), indent=2) + "\n")
        sync_folder(self._draft.parent)

    def publish(self) -> None:
        """Rename the draft to the file."""
        self._draft.replace(self.path)
        sync_folder(self.path.parent)

    def discard_draft(self) -> None:
        """Delete the draft, if there is one."""
        self._draft.unlink(missing_ok=True)

    def set_aside(self) -> None:
        """Rename the file, which has the credentials of another database, to `credentials.json.old`."""
        if self.path.exists():
            self.path.replace(self._old)


def _read(path: Path) -> Credentials | None:
    try:
        return Credentials.parse(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError):
        return None
