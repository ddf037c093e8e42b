"""Administration pages of namespaces. Services make all changes."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, Q, QuerySet, Sum
from django.http import HttpRequest

from registry_control.administration.base import ServiceDeletedAdmin, actor_of, human_size
from registry_control.administration.forms import OptimisticForm
from registry_control.common.errors import InvalidArgument
from registry_control.common.models import NOT_DELETING, Status
from registry_control.namespaces import services
from registry_control.namespaces.models import Namespace
from registry_control.namespaces.policy import check_name

if TYPE_CHECKING:
    from django.forms import ModelForm


class NamespaceForm(OptimisticForm):
    """Checks what the API checks, with messages for people."""

    def clean_name(self) -> str:
        """Check the name's form, and that no other namespace has it."""
        name: str = self.cleaned_data["name"]
        try:
            check_name(name)
        except InvalidArgument as error:
            raise ValidationError(error.help_message) from error
        if Namespace.objects.filter(NOT_DELETING, name=name).exists():
            raise ValidationError(
                "A namespace of that name exists already; names are unique in the registry."
            )
        return name

    def clean(self) -> dict[str, Any]:
        """Check that there is at most one owner, which belongs to the project's organization."""
        cleaned = super().clean()
        user, application = cleaned.get("owner_user"), cleaned.get("owner_application")
        if user and application:
            raise ValidationError("An owner is a user or an application, not both.")
        project, owner = cleaned.get("project") or self.instance.project, user or application
        if owner is not None and owner.organization_id != project.organization_id:
            raise ValidationError("The owner belongs to another organization.")
        return cleaned


@admin.register(Namespace)
class NamespaceAdmin(ServiceDeletedAdmin):
    """Name and project of a namespace cannot change; actions set its privacy and lock it."""

    form = NamespaceForm
    start_deletion = staticmethod(services.start_deletion)
    list_display = ("name", "privacy", "project", "owner", "status", "images", "size", "created_at")
    list_filter = ("is_public", "status", "project__organization")
    list_select_related = ("project__organization", "owner_user", "owner_application__organization")
    search_fields = ("name", "id", "description")
    date_hierarchy = "created_at"
    autocomplete_fields = ("project", "owner_user", "owner_application")
    actions = ("make_public", "make_private", "lock", "unlock")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Namespace]:
        """Add the number and total size of its images; the recycle bin has a page of its own."""
        pushed = Q(images__pushed_at__isnull=False)
        found: QuerySet[Namespace] = super().get_queryset(request)
        return found.exclude(status=Status.RECYCLED).annotate(
            image_count=Count("images", filter=pushed), total=Sum("images__size", filter=pushed)
        )

    def get_fields(self, request: HttpRequest, obj: Namespace | None = None) -> tuple[str, ...]:
        """The fields that can be edited, and for an existing namespace the read-only ones too."""
        chosen = (
            "name",
            "project",
            "description",
            "is_public",
            "accepts_sparse_indexes",
            "owner_user",
            "owner_application",
        )
        return ("id", *chosen, "status", "status_message", "created_at", "updated_at") if obj else chosen

    def get_readonly_fields(self, request: HttpRequest, obj: Namespace | None = None) -> tuple[str, ...]:
        """Name and project cannot change: tokens and references contain the name."""
        fixed = ("id", "name", "project", "status", "status_message", "created_at", "updated_at")
        return fixed if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: Namespace | None = None) -> bool:
        """False while the namespace is being deleted."""
        is_deleting = obj is not None and obj.status == Status.DELETING
        return not is_deleting and super().has_change_permission(request, obj)

    @admin.display(description="privacy", ordering="is_public")
    def privacy(self, namespace: Namespace) -> str:
        """The policy as a word: Django's icon for False, a red cross, looks like an error."""
        return "public" if namespace.is_public else "private"

    @admin.display(description="owner")
    def owner(self, namespace: Namespace) -> str:
        """The user or application that owns it."""
        return str(namespace.owner_user or namespace.owner_application or "-")

    @admin.display(description="images", ordering="image_count")
    def images(self, namespace: Any) -> int:
        """The number of images with at least one manifest."""
        return int(namespace.image_count)

    @admin.display(description="size", ordering="total")
    def size(self, namespace: Any) -> str:
        """The total size of its images."""
        return human_size(namespace.total or 0)

    def save_model(
        self, request: HttpRequest, obj: Namespace, form: "ModelForm[Namespace]", change: bool
    ) -> None:
        """Create a namespace, or change the edited fields of one, through the services."""
        if not change:
            # Django continues with the object that it made from the form: it becomes the created row.
            vars(obj).update(vars(self._create(request, form)))
        elif form.changed_data:
            changes = {name: form.cleaned_data[name] for name in form.changed_data}
            services.change(obj, actor=actor_of(request), **changes)

    def _create(self, request: HttpRequest, form: "ModelForm[Namespace]") -> Namespace:
        chosen = form.cleaned_data
        user, application = chosen["owner_user"], chosen["owner_application"]
        return services.create_in_project(
            actor=actor_of(request),
            project=chosen["project"],
            name=chosen["name"],
            description=chosen["description"],
            is_public=chosen["is_public"],
            accepts_sparse_indexes=chosen["accepts_sparse_indexes"],
            owner_user_id=user.pk if user else None,
            owner_application_id=application.pk if application else None,
        )

    @admin.action(description="Make public: anyone may pull images that inherit", permissions=["change"])
    def make_public(self, request: HttpRequest, queryset: QuerySet[Namespace]) -> None:
        """Set the privacy of images that inherit it."""
        self._set_public(request, queryset, is_public=True)

    @admin.action(description="Make private", permissions=["change"])
    def make_private(self, request: HttpRequest, queryset: QuerySet[Namespace]) -> None:
        """Set the privacy of images that inherit it."""
        self._set_public(request, queryset, is_public=False)

    @admin.action(description="Lock: refuse pushes and changes", permissions=["change"])
    def lock(self, request: HttpRequest, queryset: QuerySet[Namespace]) -> None:
        """Make it read-only; pulls continue."""
        self._set_locked(request, queryset, is_locked=True)

    @admin.action(description="Unlock", permissions=["change"])
    def unlock(self, request: HttpRequest, queryset: QuerySet[Namespace]) -> None:
        """Make it writable again."""
        self._set_locked(request, queryset, is_locked=False)

    def _set_public(self, request: HttpRequest, queryset: QuerySet[Namespace], *, is_public: bool) -> None:
        for namespace in _locked(queryset).filter(NOT_DELETING).exclude(is_public=is_public):
            services.change(namespace, actor=actor_of(request), is_public=is_public)
            messages.info(request, f"Now {'public' if is_public else 'private'}: {namespace}")

    def _set_locked(self, request: HttpRequest, queryset: QuerySet[Namespace], *, is_locked: bool) -> None:
        change = services.lock if is_locked else services.unlock
        for namespace in _locked(queryset):
            if change(namespace, actor=actor_of(request)):
                messages.info(request, f"Now {namespace.status}: {namespace}")


def _locked(queryset: QuerySet[Namespace]) -> QuerySet[Namespace]:
    """Lock the rows in the common lock order; without counts, because PostgreSQL cannot lock aggregates."""
    found = Namespace.objects.filter(pk__in=queryset.values("pk")).select_related("project")
    return found.select_for_update(of=("self",), no_key=True).order_by("pk")
