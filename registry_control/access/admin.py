"""The names of the signing keys, to read."""

from django.contrib import admin

from registry_control.access.models import SigningKey
from registry_control.administration.base import ReadOnlyAdmin


@admin.register(SigningKey)
class SigningKeyAdmin(ReadOnlyAdmin):
    """The newest one signs; the one before still verifies."""

    list_display = ("kid", "created_at")
    search_fields = ("kid",)
    ordering = ("-created_at",)
