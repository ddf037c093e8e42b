"""The Celery application. Tasks are declared in each app's `tasks` module (`common/background.py`)."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_control.settings")

app = Celery("stowage")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
