"""The permission sets of policies; `access.policy` defines the role that each one grants."""

from django.db.models import TextChoices


class PermissionSet(TextChoices):
    """The permission sets that a policy can grant.

    OPERATOR gives no right on any namespace: it tells of the whole installation, and takes effect only in the
    organization that operates it.
    """

    READ_ONLY = "ContainerRegistryReadOnly"
    PUSH = "ContainerRegistryPush"
    FULL_ACCESS = "ContainerRegistryFullAccess"
    OPERATOR = "ContainerRegistryOperator"
