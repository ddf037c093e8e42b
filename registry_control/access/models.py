"""The keys that sign tokens."""

from django.db import models
from django.utils import timezone


class SigningKey(models.Model):
    """Names one Ed25519 key; the key itself is derived from the server's secret and this name.

    So every node signs and checks alike, and the database alone forges nothing.
    """

    kid = models.CharField(max_length=32, primary_key=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return self.kid
