"""A row of retention for each namespace, which pushes share while they read it (ADR 62)."""

from itertools import islice
from typing import Any

from django.db import migrations

_BATCH = 1000
_NOTHING = {"enabled": False, "rules": [], "untagged_days": None, "protected_tags": [], "protected_except": []}


def add_missing(apps: Any, schema_editor: Any) -> None:
    retention = apps.get_model("namespaces", "Retention")
    without = apps.get_model("namespaces", "Namespace").objects.filter(retention=None).order_by("pk")
    ids = iter(list(without.values_list("pk", flat=True)))
    while batch := list(islice(ids, _BATCH)):
        retention.objects.bulk_create(retention(namespace_id=pk) for pk in batch)


def remove_empty(apps: Any, schema_editor: Any) -> None:
    apps.get_model("namespaces", "Retention").objects.filter(**_NOTHING).delete()


class Migration(migrations.Migration):
    dependencies = [("namespaces", "0009_restored_at")]

    operations = [migrations.RunPython(add_missing, remove_empty)]
