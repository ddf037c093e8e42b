"""Entries of referrers lists are stored as they are sent, in a table of their own (ADR 41)."""

import json
from itertools import islice

import django.db.models.deletion
from django.db import migrations, models

BATCH = 20  # rows of up to 4 MiB that are in memory at once


def _batches(rows):
    rows = rows.iterator(chunk_size=BATCH)
    while batch := list(islice(rows, BATCH)):
        yield batch


def serialize_descriptors(apps, schema_editor):
    manifests = apps.get_model("catalog", "Manifest").objects.exclude(subject_digest="").defer("payload")
    referrers = apps.get_model("catalog", "Referrer").objects
    for batch in _batches(manifests.order_by("image", "subject_digest", "pk")):
        referrers.bulk_create(_referrer(referrers.model, manifest) for manifest in batch)


def _referrer(model, manifest):
    entry = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size}
    if manifest.artifact_type:
        entry["artifactType"] = manifest.artifact_type
    if manifest.annotations:
        entry["annotations"] = manifest.annotations
    descriptor = json.dumps(entry, ensure_ascii=False).encode()
    return model(
        manifest_id=manifest.pk,
        image_id=manifest.image_id,
        subject_digest=manifest.subject_digest,
        artifact_type=manifest.artifact_type,
        size=len(descriptor),
        descriptor=descriptor,
    )


def restore_annotations(apps, schema_editor):
    manifests = apps.get_model("catalog", "Manifest").objects
    for batch in _batches(apps.get_model("catalog", "Referrer").objects.order_by("pk")):
        for referrer in batch:
            annotations = json.loads(bytes(referrer.descriptor)).get("annotations", {})
            if annotations:
                manifests.filter(pk=referrer.manifest_id).update(annotations=annotations)


class Migration(migrations.Migration):
    dependencies = [("catalog", "0007_missing_child")]

    operations = [
        migrations.CreateModel(
            name="Referrer",
            fields=[
                (
                    "manifest",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="referrer",
                        serialize=False,
                        to="catalog.manifest",
                    ),
                ),
                ("subject_digest", models.CharField(max_length=135)),
                ("artifact_type", models.CharField(blank=True, default="", max_length=255)),
                ("size", models.BigIntegerField(help_text="Bytes of the descriptor.")),
                ("descriptor", models.BinaryField()),
                (
                    "image",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="referrers",
                        to="catalog.image",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["image", "subject_digest", "manifest"], name="referrers_of_subject"),
                    models.Index(
                        fields=["image", "subject_digest", "artifact_type", "manifest"],
                        name="referrers_of_type",
                    ),
                ]
            },
        ),
        migrations.RunPython(serialize_descriptors, restore_annotations),
        migrations.RemoveField("manifest", "annotations"),
    ]
