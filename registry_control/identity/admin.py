"""Pages of organizations, projects, users, applications, API keys and policies. Services make all changes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import AdminPasswordChangeForm, UserChangeForm
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from registry_control.administration.base import AuditedAdmin, actor_of, link_to, target_of
from registry_control.administration.forms import OptimisticForm, columns_changed
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
from registry_control.identity.permission_sets import PermissionSet
from registry_control.identity.services import Identity

if TYPE_CHECKING:
    from django.forms import ModelForm

    _Form = ModelForm[Any]
    _UserAdmin = UserAdmin[User]
    _UserForm = UserChangeForm[User]
    _PasswordForm = AdminPasswordChangeForm[User]
    _Inline = admin.TabularInline[PolicyRule, Policy]
else:
    _UserAdmin, _UserForm, _Inline = UserAdmin, UserChangeForm, admin.TabularInline
    _PasswordForm = AdminPasswordChangeForm

admin.site.unregister(Group)  # administrators have permissions of their own, principals have policies


class IdentityAdmin(AuditedAdmin):
    """Saves and deletes through the services of this app."""

    def create(self, request: HttpRequest, form: "_Form") -> Identity:
        """Create the row of a valid form."""
        raise NotImplementedError

    def save_model(self, request: HttpRequest, obj: Any, form: "_Form", change: bool) -> None:
        """Create a row, or write the edited columns of one."""
        if not change:
            # Django continues with the object that it made from the form: it becomes the created row.
            vars(obj).update(vars(self.create(request, form)))
        elif columns := columns_changed(form):
            services.update(actor=actor_of(request), row=obj, fields=columns)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete a row with all that depends on it."""
        services.delete(actor=actor_of(request), row=obj)


def _named(contents: Mapping[str, int]) -> dict[str, int]:
    """The kinds of rows in words."""
    return {name.replace("api_", "API ").replace("_", " "): number for name, number in contents.items()}


def _parts(named: Mapping[str, int]) -> list[str]:
    return [f"{name}: {number}" for name, number in named.items()]


@admin.register(Organization)
class OrganizationAdmin(IdentityAdmin):
    """Creating one creates its default project too; deleting one deletes everything but namespaces."""

    list_display = ("name", "id", "created_at")
    search_fields = ("name", "id")
    readonly_fields = ("id", "created_at", "updated_at")

    def create(self, request: HttpRequest, form: "_Form") -> Organization:
        """Create it with its default project."""
        return services.create_organization(actor=actor_of(request), name=form.cleaned_data["name"])

    def has_delete_permission(self, request: HttpRequest, obj: Organization | None = None) -> bool:
        """Only superusers delete an organization that superusers belong to."""
        has_superusers = obj is not None and obj.users.filter(is_superuser=True).exists()
        may_delete = request.user.is_superuser or not has_superusers
        return may_delete and super().has_delete_permission(request, obj)

    def delete_model(self, request: HttpRequest, obj: Organization) -> None:
        """Delete it with its projects, users, applications, keys and policies."""
        services.delete_organization(actor=actor_of(request), organization=obj)

    def get_deleted_objects(
        self, objs: Iterable[Organization] | QuerySet[Organization], request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[str]]:
        """Count what the deletion deletes, and the namespaces that forbid it."""
        counts: Counter[str] = Counter()
        shown: list[Any] = []
        forbidden, protected = set(), []
        for organization in objs:
            named = _named(services.contents_of(organization))
            counts.update({"organizations": 1, **named})
            shown += [f"organization: {organization}", _parts(named)]
            if not self.has_delete_permission(request, organization):
                forbidden.add("superuser")
            if blocked := services.deletion_blocked(actor=actor_of(request), organization=organization):
                protected.append(blocked)
        return shown, dict(counts), forbidden, protected


@admin.register(Project)
class ProjectAdmin(IdentityAdmin):
    """A project cannot change its organization: namespaces and policies depend on it."""

    list_display = ("name", "organization", "id", "created_at")
    list_filter = ("organization",)
    list_select_related = ("organization",)
    search_fields = ("name", "id", "organization__name")
    autocomplete_fields = ("organization",)

    def get_readonly_fields(self, request: HttpRequest, obj: Project | None = None) -> tuple[str, ...]:
        """An existing row cannot change its organization."""
        return ("id", "created_at", "updated_at", *(("organization",) if obj else ()))

    def create(self, request: HttpRequest, form: "_Form") -> Project:
        """Create it."""
        return services.create_project(
            actor=actor_of(request),
            organization=form.cleaned_data["organization"],
            name=form.cleaned_data["name"],
            description=form.cleaned_data["description"],
        )

    def has_delete_permission(self, request: HttpRequest, obj: Project | None = None) -> bool:
        """The default project is deleted with its organization only."""
        is_default = obj is not None and obj.pk == obj.organization_id
        return not is_default and super().has_delete_permission(request, obj)

    def get_deleted_objects(
        self, objs: Iterable[Project] | QuerySet[Project], request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[str]]:
        """Count what the deletion deletes, and the namespaces that forbid it."""
        counts: Counter[str] = Counter()
        shown: list[Any] = []
        forbidden, protected = set(), []
        for project in objs:
            named = _named(services.contents_of_project(project))
            counts.update({"projects": 1, **named})
            shown += [f"project: {project}", _parts(named)]
            if not self.has_delete_permission(request, project):
                forbidden.add("default project, which goes with its organization")
            if blocked := services.namespaces_left(project):
                protected.append(blocked)
        return shown, dict(counts), forbidden, protected


MAKES_ADMINISTRATORS: Final = ("is_staff", "is_superuser", "user_permissions")
"""Only superusers set these: the right to edit users must not be a way to become an administrator."""


class UserForm(OptimisticForm, _UserForm):
    """The form of an existing user, without the password."""


class PasswordForm(_PasswordForm):
    """The form that sets or disables the password of a user."""

    @property
    def changed_data(self) -> list[str]:
        """The password, also where it is disabled: Django then reports no change, and none was audited."""
        return ["password"]


@admin.register(User)
class RegistryUserAdmin(IdentityAdmin, _UserAdmin):
    """Users: staff sign in here, members of an organization can have tenant rights.

    Only a superuser may create administrators, set the password of other staff, and change or delete
    another superuser.
    """

    form = UserForm
    change_password_form = PasswordForm
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
        """Only superusers see the field that makes a new user staff."""
        shown = super().get_fieldsets(request, obj)
        return shown if obj or request.user.is_superuser else shown[:1]

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        """A user with keys cannot change organizations: the keys would reach into the new one."""
        has_keys = obj is not None and obj.api_keys.exists()
        given = () if request.user.is_superuser else MAKES_ADMINISTRATORS
        return (*self.readonly_fields, *(("organization",) if has_keys else ()), *given)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Only superusers change superusers; Django also calls this for the password page."""
        return _may_touch(request, obj) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Only superusers delete superusers; Django calls this for every row of a cascade."""
        return _may_touch(request, obj) and super().has_delete_permission(request, obj)

    def create(self, request: HttpRequest, form: "_Form") -> User:
        """Create a user, with a password unless the form says that there is none."""
        return services.create_user(
            actor=actor_of(request),
            username=form.cleaned_data["username"],
            organization=form.cleaned_data.get("organization"),
            password=form.cleaned_data.get("password1") or None,
            is_staff=form.cleaned_data.get("is_staff", False),
        )

    def save_related(self, request: HttpRequest, form: "_Form", formsets: Any, change: bool) -> None:
        """Set the permissions through the service."""
        if "user_permissions" in form.changed_data:
            permissions = form.cleaned_data["user_permissions"]
            services.set_permissions(actor=actor_of(request), user=form.instance, permissions=permissions)

    @transaction.atomic
    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002 - Django's
        """Run in a transaction, in which `get_object` locks the row: Django saves all of its columns.

        Raises:
            PermissionDenied: only superusers set the password of other staff, who may have more rights.
        """
        user = self.get_object(request, unquote(id))
        is_other_staff = user is not None and user.is_staff and user.pk != request.user.pk
        if is_other_staff and not request.user.is_superuser:
            raise PermissionDenied
        return super().user_change_password(request, id, form_url)

    def log_change(self, request: HttpRequest, obj: User, message: Any) -> Any:
        """Audit new passwords: Django's page saves them itself, and calls this afterwards."""
        if "password" in str(message).lower():
            record(actor=actor_of(request), verb="user.password", target=target_of(obj))
        return super().log_change(request, obj, message)


def _may_touch(request: HttpRequest, user: User | None) -> bool:
    """Whether the signed-in user may edit another user: superusers are edited by superusers only."""
    return user is None or not user.is_superuser or request.user.is_superuser


@admin.register(Application)
class ApplicationAdmin(IdentityAdmin):
    """Principals for scripts and CI."""

    list_display = ("name", "organization", "is_active", "id", "created_at")
    list_filter = ("is_active", "organization")
    list_select_related = ("organization",)
    search_fields = ("name", "id", "organization__name")
    autocomplete_fields = ("organization",)

    def get_readonly_fields(self, request: HttpRequest, obj: Application | None = None) -> tuple[str, ...]:
        """An existing row cannot change its organization."""
        return ("id", "created_at", "updated_at", *(("organization",) if obj else ()))

    def create(self, request: HttpRequest, form: "_Form") -> Application:
        """Create it."""
        created = services.create_application(
            actor=actor_of(request),
            organization=form.cleaned_data["organization"],
            name=form.cleaned_data["name"],
            description=form.cleaned_data["description"],
        )
        if not form.cleaned_data["is_active"]:
            created.is_active = False
            services.update(actor=actor_of(request), row=created, fields=["is_active"])
        return created


class HeldForm(OptimisticForm):
    """A row that belongs to a user or to an application, and whose parts are all of one organization."""

    def clean(self) -> dict[str, Any]:
        """Check what database constraints check, with messages for people."""
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
class ApiKeyAdmin(IdentityAdmin):
    """The response to the creation of a key shows its secret, once. Deleting a key revokes it at once."""

    form = HeldForm
    list_display = ("access_key", "holder", "default_project", "description", "expires_at", "created_at")
    list_filter = ("expires_at",)
    list_select_related = ("user", "application__organization", "default_project__organization")
    search_fields = ("access_key", "description", "user__username", "application__name")
    autocomplete_fields = ("user", "application", "default_project")

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        """An existing key also shows its access key."""
        fields = ("user", "application", "default_project", "description", "expires_at")
        return ("access_key", *fields, "created_at") if obj else fields

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        """A key cannot change its holder."""
        return ("access_key", "user", "application", "created_at") if obj else ()

    @admin.display(description="holder")
    def holder(self, key: ApiKey) -> str:
        """A link to the principal that holds the key."""
        return link_to(key.user or key.application)

    def create(self, request: HttpRequest, form: "_Form") -> ApiKey:
        """Create it; `response_add` shows the secret."""
        issued = services.create_api_key(
            actor=actor_of(request),
            holder=form.cleaned_data["user"] or form.cleaned_data["application"],
            default_project=form.cleaned_data["default_project"],
            description=form.cleaned_data["description"],
            expires_at=form.cleaned_data["expires_at"],
        )
        # Django passes on only the request and the row, and the row has no column for a secret.
        vars(request)["issued_secret"] = issued.secret
        return issued.api_key

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the secret in this response, whichever button was pressed.

        A message would store it in a cookie, which browsers send to every port of the host.
        """
        context = {
            **self.admin_site.each_context(request),
            "title": "The API key was created",
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
        """Revoke it."""
        services.delete_api_key(actor=actor_of(request), api_key=obj)


class RuleForm(OptimisticForm):
    """A rule whose project belongs to the policy's organization."""

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
        """Lock the rules inside a transaction, as `get_object` locks their policy."""
        found: QuerySet[PolicyRule] = super().get_queryset(request)
        return found.select_for_update() if transaction.get_connection().in_atomic_block else found


@admin.register(Policy)
class PolicyAdmin(IdentityAdmin):
    """Permission sets of principals on projects."""

    form = HeldForm
    inlines = (RuleInline,)
    list_display = ("name", "organization", "holder", "grants", "created_at")
    list_filter = ("organization", "rules__permission_set")
    list_select_related = ("organization", "user", "application__organization")
    search_fields = ("name", "id", "user__username", "application__name")
    autocomplete_fields = ("organization", "user", "application")
    readonly_fields = ("id", "created_at", "updated_at")

    def get_queryset(self, request: HttpRequest) -> Any:
        """Fetch the rules that the list shows."""
        return super().get_queryset(request).prefetch_related("rules__project__organization")

    def create(self, request: HttpRequest, form: "_Form") -> Policy:
        """Create it; `save_formset` adds its rules."""
        holder = form.cleaned_data["user"] or form.cleaned_data["application"]
        return services.create_policy(actor=actor_of(request), holder=holder, name=form.cleaned_data["name"])

    def save_formset(self, request: HttpRequest, form: "_Form", formset: Any, change: bool) -> None:
        """Add, change and remove rules."""
        actor = actor_of(request)
        formset.save(commit=False)
        for rule in formset.deleted_objects:
            services.remove_rule(actor=actor, rule=rule)
        for rule, _ in formset.changed_objects:
            services.change_rule(actor=actor, rule=rule)
        for rule in formset.new_objects:
            permission_set = PermissionSet(rule.permission_set)
            services.add_rule(
                actor=actor, policy=form.instance, permission_set=permission_set, project=rule.project
            )

    @admin.display(description="holder")
    def holder(self, policy: Policy) -> str:
        """A link to the principal that has the policy."""
        return link_to(policy.user or policy.application)

    @admin.display(description="grants")
    def grants(self, policy: Policy) -> str:
        """The rules in one line."""
        return "; ".join(str(rule) for rule in policy.rules.all()) or "nothing"
