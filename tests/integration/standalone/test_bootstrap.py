"""The first start: the rows, the credentials file, and starts that are interrupted at critical moments."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from django.contrib.auth import authenticate

from registry_control.access.policy import Kind
from registry_control.access.selectors import operates, principal_by_secret
from registry_control.audit.models import AuditEvent
from registry_control.audit.services import SYSTEM
from registry_control.identity.models import ApiKey, Organization, PolicyRule, Project, User
from registry_control.identity.services import delete_api_key
from registry_control.standalone.bootstrap import first_start, works
from registry_control.standalone.credentials import Credentials, CredentialsFile
from tests.factories import make_user

pytestmark = pytest.mark.django_db

CONTROL, REGISTRY = "http://127.0.0.1:8000", "127.0.0.1:5000"


class PowerCut(BaseException):
    """Not an `Exception`, so that no handler catches it."""


class DiesBeforeDraft(CredentialsFile):
    def draft(self, credentials: Credentials) -> None:
        raise PowerCut


class DiesAfterDraft(CredentialsFile):
    def draft(self, credentials: Credentials) -> None:
        super().draft(credentials)
        raise PowerCut


class DiesBeforePublishing(CredentialsFile):
    def publish(self) -> None:
        raise PowerCut


class DiesAfterPublishing(CredentialsFile):
    def publish(self) -> None:
        super().publish()
        raise PowerCut


def start(file: CredentialsFile, *, control_url: str = CONTROL) -> Credentials | None:
    return first_start(file, control_url=control_url, registry_host=REGISTRY)


def started(file: CredentialsFile) -> Credentials:
    credentials = start(file)
    assert credentials is not None
    return credentials


def rows() -> dict[str, int]:
    models = (Organization, Project, User, ApiKey, PolicyRule, AuditEvent)
    return {model.__name__: model.objects.count() for model in models}


def test_the_first_start_creates_an_administrator_with_all_rights(tmp_path: Path) -> None:
    # when the registry starts with an empty database and an empty folder
    credentials = started(CredentialsFile(tmp_path))

    # then the file has the eight values, and only its owner can read it
    path = tmp_path / "credentials.json"
    assert json.loads(path.read_text(encoding="utf-8")) == asdict(credentials)
    assert list(asdict(credentials)) == [
        "control_url",
        "registry_host",
        "organization_id",
        "project_id",
        "access_key",
        "secret_key",
        "admin_username",
        "admin_password",
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["credentials.json"]

    # and password, key and rights are those of the administrator
    administrator = authenticate(username="admin", password=credentials.admin_password)
    assert isinstance(administrator, User)
    assert administrator.is_superuser
    assert administrator.is_staff
    principal = principal_by_secret(credentials.secret_key)
    assert (principal.kind, principal.id) == (Kind.USER, administrator.pk)
    assert {(right.permission_set, right.project_id) for right in principal.rights} == {
        ("ContainerRegistryFullAccess", None),
        ("ContainerRegistryOperator", None),
    }
    assert operates(principal)
    assert str(principal.organization_id) == credentials.organization_id == credentials.project_id
    assert Project.objects.get().organization.name == "default"


def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    # given a registry that has been started
    file = CredentialsFile(tmp_path)
    first, made, written = started(file), rows(), file.path.stat()

    # when it is started again
    second = started(file)

    # then rows and file are unchanged, including the file's modification time
    assert second == first
    assert rows() == made
    assert (file.path.stat().st_ino, file.path.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


def test_a_start_with_other_addresses_updates_only_these_in_the_file(tmp_path: Path) -> None:
    file = CredentialsFile(tmp_path)
    first = asdict(started(file))
    second = start(file, control_url="http://127.0.0.1:9000")
    assert second == file.read()
    assert second is not None
    assert asdict(second) == {**first, "control_url": "http://127.0.0.1:9000"}


@pytest.mark.parametrize(
    "dying", [DiesBeforeDraft, DiesAfterDraft, DiesBeforePublishing, DiesAfterPublishing]
)
def test_a_start_that_is_interrupted_is_completed_by_the_next(
    tmp_path: Path, dying: type[CredentialsFile]
) -> None:
    # given a first start that is interrupted
    with pytest.raises(PowerCut):
        start(dying(tmp_path))
    left = CredentialsFile(tmp_path).read()
    assert left is None or works(left)

    # when it is started again
    credentials = started(CredentialsFile(tmp_path))

    # then there is one row of each kind and two rules, the key works, and no draft is left
    assert works(credentials)
    assert rows() == {
        "Organization": 1,
        "Project": 1,
        "User": 1,
        "ApiKey": 1,
        "PolicyRule": 2,
        "AuditEvent": 7,
    }
    assert authenticate(username="admin", password=credentials.admin_password)
    assert [entry.name for entry in tmp_path.iterdir()] == ["credentials.json"]


def test_an_interrupted_update_leaves_a_valid_file(tmp_path: Path) -> None:
    # given a start with other addresses that is interrupted before the rename
    first = started(CredentialsFile(tmp_path))
    with pytest.raises(PowerCut):
        start(DiesBeforePublishing(tmp_path), control_url="http://127.0.0.1:9000")
    assert CredentialsFile(tmp_path).read() == first

    # when the next start has the first addresses again
    assert started(CredentialsFile(tmp_path)) == first

    # then the draft with the secrets is deleted
    assert [entry.name for entry in tmp_path.iterdir()] == ["credentials.json"]


def test_a_file_that_was_moved_away_is_not_created_again(tmp_path: Path) -> None:
    # given an operator who has moved the credentials elsewhere
    file = CredentialsFile(tmp_path)
    started(file)
    file.path.unlink()
    made = rows()

    # when the registry starts, then it creates no new key or password
    assert start(file) is None
    assert rows() == made
    assert list(tmp_path.iterdir()) == []


def test_a_start_with_existing_users_is_not_a_first_start(tmp_path: Path) -> None:
    make_user()
    made = rows()
    assert start(CredentialsFile(tmp_path)) is None
    assert rows() == made


def test_another_database_gets_other_credentials_and_the_old_file_is_renamed(tmp_path: Path) -> None:
    # given the file of one database
    file = CredentialsFile(tmp_path)
    old = started(file)

    # when REGISTRY_DATABASE_URL selects an empty one
    User.objects.all().delete()
    Organization.objects.all().delete()
    new = started(file)

    # then the file is that of the new database, and the old file is renamed
    assert works(new)
    assert new.organization_id != old.organization_id
    assert json.loads((tmp_path / "credentials.json.old").read_text(encoding="utf-8")) == asdict(old)


def test_an_interrupted_change_of_the_database_is_completed_by_the_next_start(tmp_path: Path) -> None:
    # given the file of one database, and a first start on another one that is interrupted before the rename
    old = started(CredentialsFile(tmp_path))
    User.objects.all().delete()
    Organization.objects.all().delete()
    with pytest.raises(PowerCut):
        start(DiesBeforePublishing(tmp_path))

    # when it is started again
    new = started(CredentialsFile(tmp_path))

    # then the file is that of the new database, and the old file is renamed
    assert works(new)
    assert json.loads((tmp_path / "credentials.json.old").read_text(encoding="utf-8")) == asdict(old)


def test_a_key_that_was_revoked_does_not_work(tmp_path: Path) -> None:
    credentials = started(CredentialsFile(tmp_path))
    delete_api_key(actor=SYSTEM, api_key=ApiKey.objects.get())
    assert not works(credentials)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"control_url": 1}'])
def test_an_unreadable_file_does_not_prevent_the_start(tmp_path: Path, text: str) -> None:
    # given a registry whose file was overwritten
    file = CredentialsFile(tmp_path)
    started(file)
    file.path.write_text(text, encoding="utf-8")

    # when it starts, then it prints no credentials, and does not change the file
    assert start(file) is None
    assert file.path.read_text(encoding="utf-8") == text


def test_the_representation_of_credentials_has_no_secrets(tmp_path: Path) -> None:
    credentials = started(CredentialsFile(tmp_path))
    assert credentials.secret_key not in repr(credentials)
    assert credentials.admin_password not in repr(credentials)
