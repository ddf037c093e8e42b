"""`credentials.json`: what the first start tells its operator, and nobody else.

The file goes through a draft beside it. A draft is whole and on the disk before anything relies on it,
and becomes the file by a rename, so nobody ever reads half a file.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

_NAME: Final = "credentials.json"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The keys of the file, in its order."""

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
        """None for what is not such a file."""
        try:
            values = json.loads(text)
            found = cls(**values)
        except (ValueError, TypeError):
            return None
        return found if all(isinstance(value, str) for value in values.values()) else None


class CredentialsFile:
    """The file in a state folder. Only one process at a time may hold one of these (`up` has a lock)."""

    def __init__(self, state_dir: Path) -> None:
        self.path: Final = state_dir / _NAME
        self._draft: Final = state_dir / f"{_NAME}.draft"
        self._old: Final = state_dir / f"{_NAME}.old"

    def read(self) -> Credentials | None:
        """What the file says; None when it is missing or not ours."""
        return _read(self.path)

    def read_draft(self) -> Credentials | None:
        """What a start that was killed had prepared."""
        return _read(self._draft)

    def draft(self, credentials: Credentials) -> None:
        """Put a whole draft on the disk; the file itself stays as it is."""
        self.discard_draft()
        descriptor = os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(credentials), indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._sync_folder()

    def publish(self) -> None:
        """Make the draft the file."""
        self._draft.replace(self.path)
        self._sync_folder()

    def discard_draft(self) -> None:
        """Remove what a start that was killed had prepared, if it had."""
        self._draft.unlink(missing_ok=True)

    def set_aside(self) -> None:
        """Keep the credentials of another database under another name."""
        if self.path.exists():
            self.path.replace(self._old)

    def _sync_folder(self) -> None:
        descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(path: Path) -> Credentials | None:
    try:
        return Credentials.parse(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError):
        return None
