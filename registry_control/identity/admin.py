"""Organizations, projects, people, robots, keys and policies."""

from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import UserChangeForm
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from registry_control.administration.base import AuditedAdmin, actor_of, link_to, target_of
from registry_control.administration.forms import OptimisticForm
from registry_control.audit.services import record
from registry_control.identity import services
from registry_control.identity.models import (
    ApiKey,
    Application,
    Organization,
    Policy,
    PolicyRule,
    Project,
    User,
)

if TYPE_CHECKING:
    from django.forms import ModelForm

    _Form = ModelForm[Any]
    _UserAdmin = UserAdmin[User]
    _UserForm = UserChangeForm[User]
    _Inline = admin.TabularInline[PolicyRule, Policy]
else:
    _UserAdmin, _UserForm, _Inline = UserAdmin, UserChangeForm, admin.TabularInline

admin.site.unregister(Group)  # permissions of administrators are given one by one, tenants have policies


@admin.register(Organization)
class OrganizationAdmin(AuditedAdmin):
    """A new one gets its default project along."""

    list_display = ("name", "id", "created_at")
    search_fields = ("name", "id")
    readonly_fields = ("id", "created_at", "updated_at")

    def save_model(self, request: HttpRequest, obj: Organization, form: "_Form", change: bool) -> None:
        """Create through the service, which makes the default project."""
        if change:
            super().save_model(request, obj, form, change)
            return
        created = services.create_organization(actor=actor_of(request), name=obj.name)
        obj.pk, obj.created_at, obj.updated_at = created.pk, created.created_at, created.updated_at
        obj._state.adding = False


@admin.register(Project)
class ProjectAdmin(AuditedAdmin):
    """Its organization is for good: namespaces and policies depend on it."""

    list_display = ("name", "organization", "id", "created_at")
    list_filter = ("organization",)
    list_select_related = ("organization",)
    search_fields = ("name", "id", "organization__name")
    autocomplete_fields = ("organization",)

    def get_readonly_fields(self, request: HttpRequest, obj: Project | None = None) -> tuple[str, ...]:
        """What must not change once it is there."""
        return ("id", "created_at", "updated_at", *(("organization",) if obj else ()))

    def has_delete_permission(self, request: HttpRequest, obj: Project | None = None) -> bool:
        """The default project goes with its organization only."""
        is_default = obj is not None and obj.pk == obj.organization_id
        return not is_default and super().has_delete_permission(request, obj)


MAKES_ADMINISTRATORS: Final = ("is_staff", "is_superuser", "user_permissions")
"""What is a superuser's to give: who may edit people must not thereby become one."""


class UserForm(OptimisticForm, _UserForm):
    """A person's page, without the password."""


@admin.register(User)
class RegistryUserAdmin(AuditedAdmin, _UserAdmin):
    """People: staff administer here, an organization gives tenant rights.

    Only a superuser may make administrators, and change or delete another superuser.
    """

    form = UserForm
    list_display = ("username", "organization", "email", "is_staff", "is_active", "last_login")
    list_filter = ("is_staff", "is_superuser", "is_active", "organization")
    list_select_related = ("organization",)
    search_fields = ("username", "email", "id")
    autocomplete_fields = ("organization",)
    filter_horizontal = ("user_permissions",)
    readonly_fields = ("id", "last_login", "date_joined")
    fieldsets = (
        (None, {"fields": ("id", "username", "password", "organization")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("Administration", {"fields": ("is_active", "is_staff", "is_superuser", "user_permissions")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = (
        (
            None,
            {"fields": ("username", "organization", "usable_password", "password1", "password2")},
        ),
        ("Administration", {"fields": ("is_staff",)}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Whether a new person is staff is asked of superusers only."""
        shown = super().get_fieldsets(request, obj)
        return shown if obj or request.user.is_superuser else shown[:1]

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        """An organization is for good once there are keys: they would reach into the new one."""
        has_keys = obj is not None and obj.api_keys.exists()
        given = () if request.user.is_superuser else MAKES_ADMINISTRATORS
        return (*self.readonly_fields, *(("organization",) if has_keys else ()), *given)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Asked for the password's page as well."""
        return _may_touch(request, obj) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Asked for each row that a deletion takes along, on whatever page it begins."""
        return _may_touch(request, obj) and super().has_delete_permission(request, obj)

    @transaction.atomic
    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002 - Django's
        """Hold the row, as on every other page: all of it is saved."""
        return super().user_change_password(request, id, form_url)

    def log_change(self, request: HttpRequest, obj: User, message: Any) -> Any:
        """Django's page for passwords saves by itself; this is where it says so."""
        if "password" in str(message).lower():
            record(actor=actor_of(request), verb="user.password", target=target_of(obj))
        return super().log_change(request, obj, message)


def _may_touch(request: HttpRequest, user: User | None) -> bool:
    """Whether somebody else's being a superuser stands in the way."""
    return user is None or not user.is_superuser or request.user.is_superuser


@admin.register(Application)
class ApplicationAdmin(AuditedAdmin):
    """Robots."""

    list_display = ("name", "organization", "is_active", "id", "created_at")
    list_filter = ("is_active", "organization")
    list_select_related = ("organization",)
    search_fields = ("name", "id", "organization__name")
    autocomplete_fields = ("organization",)

    def get_readonly_fields(self, request: HttpRequest, obj: Application | None = None) -> tuple[str, ...]:
        """What must not change once it is there."""
        return ("id", "created_at", "updated_at", *(("organization",) if obj else ()))


class HeldForm(OptimisticForm):
    """For what belongs to a user or an application: exactly one, and everything of one organization."""

    def clean(self) -> dict[str, Any]:
        """Refuse what a database constraint would, in words."""
        cleaned = super().clean()
        user = cleaned.get("user") or self.instance.user
        application = cleaned.get("application") or self.instance.application
        if bool(user) == bool(application):
            raise ValidationError("Choose a user or an application: one of them.")
        holder = user or application
        if holder.organization_id is None:
            raise ValidationError("The user belongs to no organization.")
        organization = cleaned.get("organization")
        if organization is not None and organization.pk != holder.organization_id:
            raise ValidationError("The user or application belongs to another organization.")
        project = cleaned.get("default_project")
        if project is not None and project.organization_id != holder.organization_id:
            raise ValidationError("The project belongs to another organization.")
        return cleaned


@admin.register(ApiKey)
class ApiKeyAdmin(AuditedAdmin):
    """The secret is shown once, right after the key was made. Deleting a key revokes it at once."""

    form = HeldForm
    list_display = ("access_key", "holder", "default_project", "description", "expires_at", "created_at")
    list_filter = ("expires_at",)
    list_select_related = ("user", "application__organization", "default_project__organization")
    search_fields = ("access_key", "description", "user__username", "application__name")
    autocomplete_fields = ("user", "application", "default_project")

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        """The access key is there from the second look on."""
        fields = ("user", "application", "default_project", "description", "expires_at")
        return ("access_key", *fields, "created_at") if obj else fields

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        """A key keeps its holder."""
        return ("access_key", "user", "application", "created_at") if obj else ()

    @admin.display(description="holder")
    def holder(self, key: ApiKey) -> str:
        """Whose it is."""
        return link_to(key.user or key.application)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: "_Form", change: bool) -> None:
        """Create through the service; `response_add` shows the secret."""
        if change:
            super().save_model(request, obj, form, change)
            return
        holder = obj.user or obj.application
        if holder is None:
            raise ValidationError("Choose a user or an application.")
        issued = services.create_api_key(
            actor=actor_of(request),
            holder=holder,
            default_project=obj.default_project,
            description=obj.description,
            expires_at=obj.expires_at,
        )
        obj.access_key, obj.secret_hmac = issued.api_key.access_key, issued.api_key.secret_hmac
        obj._state.adding = False
        # Django hands on nothing but these two, and the row has no place for a secret.
        vars(request)["issued_secret"] = issued.secret

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the secret in this very answer, whichever button was pressed.

        A message would carry it to the next page in a cookie, which browsers send to every port of the host.
        """
        context = {
            **self.admin_site.each_context(request),
            "title": "The API key was made",
            "opts": self.opts,
            "api_key": obj,
            "secret": vars(request).pop("issued_secret"),
            "has_view_permission": self.has_view_permission(request, obj),
        }
        request.current_app = self.admin_site.name
        answer = TemplateResponse(request, "admin/identity/apikey/issued.html", context)
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def delete_model(self, request: HttpRequest, obj: ApiKey) -> None:
        """Revoke through the service."""
        services.delete_api_key(actor=actor_of(request), api_key=obj)


class RuleForm(OptimisticForm):
    """A rule's project is one of the policy's own organization."""

    def clean(self) -> dict[str, Any]:
        """Refuse another organization's project."""
        cleaned = super().clean()
        project, policy = cleaned.get("project"), cleaned.get("policy")
        if project is not None and policy is not None and project.organization_id != policy.organization_id:
            raise ValidationError("The project belongs to another organization.")
        return cleaned


class RuleInline(_Inline):
    """The rules of a policy."""

    model = PolicyRule
    form = RuleForm
    extra = 1
    autocomplete_fields = ("project",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[PolicyRule]:
        """Hold them where they are to be changed, as their policy is."""
        found: QuerySet[PolicyRule] = super().get_queryset(request)
        return found.select_for_update() if transaction.get_connection().in_atomic_block else found


@admin.register(Policy)
class PolicyAdmin(AuditedAdmin):
    """Who has which permission sets where."""

    form = HeldForm
    inlines = (RuleInline,)
    list_display = ("name", "organization", "holder", "gives", "created_at")
    list_filter = ("organization", "rules__permission_set")
    list_select_related = ("organization", "user", "application__organization")
    search_fields = ("name", "id", "user__username", "application__name")
    autocomplete_fields = ("organization", "user", "application")
    readonly_fields = ("id", "created_at", "updated_at")

    def get_queryset(self, request: HttpRequest) -> Any:
        """Rules come along for the list."""
        return super().get_queryset(request).prefetch_related("rules__project__organization")

    @admin.display(description="holder")
    def holder(self, policy: Policy) -> str:
        """Who has it."""
        return link_to(policy.user or policy.application)

    @admin.display(description="gives")
    def gives(self, policy: Policy) -> str:
        """Its rules in a line."""
        return "; ".join(str(rule) for rule in policy.rules.all()) or "nothing"
