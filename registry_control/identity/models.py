"""Organizations, projects, principals, API keys and policies, named as in Scaleway's IAM."""

import uuid

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q
from django.utils import timezone

from registry_control.common.models import Timestamped
from registry_control.identity.permission_sets import PermissionSet


class Organization(Timestamped):
    """A tenant, isolated from all others."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=255)
    operates_installation = models.BooleanField(
        default=False,
        editable=False,
        help_text="The organization of the first start: its policies can grant ContainerRegistryOperator.",
    )

    def __str__(self) -> str:
        return self.name


class Project(Timestamped):
    """A part of an organization; a namespace belongs to one, a policy grants rights on one or on all.

    An organization's default project has the organization's own id.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, models.CASCADE, related_name="projects")
    name = models.CharField(max_length=255)
    description = models.TextField(blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "name"], name="project_name_in_organization")
        ]

    def __str__(self) -> str:
        return f"{self.organization}/{self.name}"


class User(AbstractUser):
    """A person. Staff sign in to the administration; members of an organization can have tenant rights."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(
        Organization, models.CASCADE, related_name="users", null=True, blank=True
    )


class Application(Timestamped):
    """A principal without a password, for scripts and CI."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, models.CASCADE, related_name="applications")
    name = models.CharField(max_length=255)
    description = models.TextField(blank=True, default="")
    is_active = models.BooleanField(default=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "name"], name="application_name_in_organization")
        ]

    def __str__(self) -> str:
        return f"{self.organization}/{self.name}"


def one_principal(name: str) -> models.CheckConstraint:
    """A row belongs to a user or to an application, never to both or to neither."""
    user = Q(user__isnull=False, application__isnull=True)
    application = Q(user__isnull=True, application__isnull=False)
    return models.CheckConstraint(condition=user | application, name=name)


class ApiKey(models.Model):
    """An API key of a principal.

    Clients send the secret without the access key, so it is looked up by an indexed HMAC-SHA-256 under the
    server's pepper. The secret itself is not stored.
    """

    access_key = models.CharField(max_length=20, primary_key=True, editable=False)
    secret_hmac = models.CharField(max_length=64, unique=True, editable=False)
    user = models.ForeignKey(User, models.CASCADE, related_name="api_keys", null=True, blank=True)
    application = models.ForeignKey(
        Application, models.CASCADE, related_name="api_keys", null=True, blank=True
    )
    default_project = models.ForeignKey(Project, models.CASCADE, related_name="+")
    description = models.CharField(max_length=255, blank=True, default="")
    expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = "API key"
        constraints = [one_principal("api_key_has_one_principal")]

    def __str__(self) -> str:
        return self.access_key


class Policy(Timestamped):
    """Grants one principal of an organization the permission sets of its rules."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, models.CASCADE, related_name="policies")
    name = models.CharField(max_length=255)
    user = models.ForeignKey(User, models.CASCADE, related_name="policies", null=True, blank=True)
    application = models.ForeignKey(
        Application, models.CASCADE, related_name="policies", null=True, blank=True
    )

    class Meta:
        verbose_name_plural = "policies"
        constraints = [
            one_principal("policy_has_one_principal"),
            models.UniqueConstraint(fields=["organization", "name"], name="policy_name_in_organization"),
        ]

    def __str__(self) -> str:
        return self.name


class PolicyRule(models.Model):
    """One permission set on one project, or on every project of the policy's organization."""

    policy = models.ForeignKey(Policy, models.CASCADE, related_name="rules")
    permission_set = models.CharField(max_length=64, choices=PermissionSet.choices)
    project = models.ForeignKey(
        Project,
        models.CASCADE,
        related_name="+",
        null=True,
        blank=True,
        help_text="Empty: every project of the organization.",
    )

    def __str__(self) -> str:
        return f"{self.permission_set} on {self.project or 'all projects'}"
