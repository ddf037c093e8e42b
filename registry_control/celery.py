"""The worker's application: tasks are found in every app's `tasks`, the schedule is here."""

import os

from celery import Celery
from kombu import Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_control.settings")

app = Celery("stowage")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.task_queues = [Queue("stowage")]
app.conf.task_default_queue = "stowage"
app.autodiscover_tasks()
# Nudges come at once; the schedule is for what a lost nudge or a dead worker left, in seconds.
app.conf.beat_schedule = {
    "finish deletions": {"task": "catalog.finish_deletions", "schedule": 10.0},
    "expire uploads": {"task": "catalog.expire_uploads", "schedule": 300.0},
    "expire leases": {"task": "catalog.expire_leases", "schedule": 300.0},
    "prune the change log": {"task": "common.prune_changes", "schedule": 300.0},
    "rotate signing keys": {"task": "access.rotate_signing_keys", "schedule": 3600.0},
}
