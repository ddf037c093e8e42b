"""The permission sets of policies; `access.policy` defines the role that each one grants."""

from django.db.models import TextChoices


class PermissionSet(TextChoices):
    """The permission sets that a policy can grant."""

    READ_ONLY = "ContainerRegistryReadOnly"
    PUSH = "ContainerRegistryPush"
    FULL_ACCESS = "ContainerRegistryFullAccess"
