"""Rows by which the worker processes of all nodes know of each other."""

from django.db import models


class LeaderLease(models.Model):
    """The right to be the only process of the installation that does something, until it expires."""

    name = models.CharField(max_length=64, primary_key=True)
    owner = models.CharField(max_length=320)
    expires_at = models.DateTimeField()


class WorkerHeartbeat(models.Model):
    """When a worker process of a queue, on any node, was last connected to database and broker."""

    queue = models.CharField(max_length=16, primary_key=True)
    node = models.CharField(max_length=255)
    seen_at = models.DateTimeField()


class Installation(models.Model):
    """What all nodes must agree on; one row."""

    id = models.PositiveSmallIntegerField(primary_key=True)
    secret_key_hash = models.CharField(max_length=64)
