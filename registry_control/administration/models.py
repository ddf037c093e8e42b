"""Failed sign-ins of the last minutes."""

from django.db import models


class SignInCounter(models.Model):
    """The recent failed sign-ins of one address, or of one user name from one network (ADR 49)."""

    key = models.CharField(max_length=128, primary_key=True, editable=False)
    failures = models.JSONField(default=list, editable=False)  # Unix times, in seconds
    refused_at = models.FloatField(default=0, editable=False)  # Unix time of the last audited refusal
    updated_at = models.FloatField(db_index=True, editable=False)  # Unix time

    def __str__(self) -> str:
        return self.key
