"""One module adds and removes references to blobs, so that garbage collection depends on that module only."""

import re
from pathlib import Path

from django.apps import apps
from django.db.models import CASCADE

ROOT = Path(__file__).parents[2]
TABLES = re.compile(r"\b(BlobLink|BlobLease|catalog_bloblink|catalog_bloblease)\b")
WRITES = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM) \w+|\.(delete|update|create)\(")
REFERENCES = "registry_control/catalog/references.py"
# Modules that may read the tables; the administration shows rows and does not change them.
READERS = {"registry_control/catalog/models.py", "registry_control/catalog/admin.py"}
SELECTORS = ("registry_control/catalog/selectors/", "registry_control/gc/selectors/")


def sources() -> list[str]:
    found = [*ROOT.glob("registry_control/**/*.py"), *ROOT.glob("registry_data/**/*.py")]
    return [str(path.relative_to(ROOT)) for path in found if "migrations" not in path.parts]


def test_only_references_and_selectors_use_the_tables_of_links_and_leases() -> None:
    named = {path for path in sources() if TABLES.search((ROOT / path).read_text())}
    assert REFERENCES in named
    others = {path for path in named - READERS - {REFERENCES} if not path.startswith(SELECTORS)}
    assert others == set()


def test_selectors_do_not_write() -> None:
    writing = [
        path for path in sources() if path.startswith(SELECTORS) and WRITES.search((ROOT / path).read_text())
    ]
    assert writing == []


def test_no_row_of_the_catalogue_is_deleted_by_a_cascade() -> None:
    fields = [
        field for model in apps.get_app_config("catalog").get_models() for field in model._meta.get_fields()
    ]
    assert [field for field in fields if getattr(field, "on_delete", None) is CASCADE] == []
