"""Invalid values of query strings and actions on administration pages never lead to a 5xx."""

from itertools import product

import pytest
from django.db.models import Model
from django.test import Client

from registry_control.audit.models import AuditEvent
from registry_control.catalog.models import Image, Manifest, UploadSession
from registry_control.identity.models import ApiKey, Policy, User
from registry_control.namespaces.models import Namespace
from tests.factories import TestKey, push_image
from tests.integration.admin.forms import url

pytestmark = pytest.mark.django_db(transaction=True)

VALUES = [
    "0",
    "9999",
    "99999999999999999999999999",
    "%00",
    "\x00",
    "\ud7ff￾",
    "(",
    "{",
    "9999-12-31T23:59:59Z",
    "not-an-id",
    "a,b,\x00",
    " ".join("ab" for _ in range(160)),
    "x" * 60_000,
]
LOOKUPS: dict[type[Model], list[str]] = {
    Namespace: [
        "created_at__year",
        "created_at__gte",
        "created_at__date",
        "created_at__year__in",
        "status__exact",
        "status__in",
        "is_public__exact",
        "is_public__isnull",
        "project__organization__id__exact",
        "name__regex",
        "name__contains",
        "name__nothing",
        "id__in",
        "image_rows__lt",
        "q",
        "o",
        "p",
        "all",
        "e",
        "_facets",
        "_to_field",
    ],
    Image: [
        "size__exact",
        "size__in",
        "namespace__is_public__exact",
    ],
    Manifest: [
        "media_type",
        "annotations__contains",
        "annotations__has_key",
    ],
    UploadSession: [
        "hashed_size__gt",
        "is_open__exact",
    ],
    ApiKey: [
        "expires_at__gte",
        "access_key__exact",
    ],
    Policy: [
        "rules__permission_set__exact",
        "rules__project__exact",
    ],
    AuditEvent: [
        "at__year",
        "at__hour",
        "at__time",
        "at__week_day",
        "id__exact",
        "detail__tag",
        "detail__contains",
        "organization_id__exact",
        "q",
    ],
}


@pytest.mark.parametrize("model", LOOKUPS, ids=lambda model: model.__name__)
def test_no_lookup_value_is_a_server_error(
    pages: Client, owner: TestKey, namespace: Namespace, model: type[Model]
) -> None:
    push_image(owner, namespace)
    for lookup, value in product(LOOKUPS[model], VALUES):
        response = pages.get(url(model, "changelist"), {lookup: value})
        assert response.status_code in (200, 302, 400), (lookup, value)
        if response.status_code == 302:
            assert response.headers["Location"].endswith("?e=1"), (lookup, value)
            again = pages.get(url(model, "changelist"), {lookup: value, "e": "1"})
            assert again.status_code == 400, (lookup, value)


def test_no_date_part_is_a_server_error(pages: Client, namespace: Namespace) -> None:
    for name, model in (("created_at", Namespace), ("at", AuditEvent)):
        for part, value in product(("year", "month", "day"), VALUES):
            date = {f"{name}__year": "9999", f"{name}__month": "12", f"{name}__day": "31"}
            response = pages.get(url(model, "changelist"), date | {f"{name}__{part}": value})
            assert response.status_code in (200, 302, 400), (name, value)


def test_no_id_is_a_server_error(pages: Client, namespace: Namespace) -> None:
    for value, model in product(VALUES, (Namespace, User, ApiKey, AuditEvent)):
        short = value[:200]
        chosen = {"action": "delete_selected", "_selected_action": [short]}
        assert pages.post(url(model, "changelist"), chosen).status_code in (200, 302, 400, 403)
        assert pages.get(url(model, "change", short)).status_code in (302, 404)
        assert pages.get(url(model, "history", short)).status_code == 302


def test_no_search_term_or_initial_value_is_a_server_error(pages: Client, namespace: Namespace) -> None:
    field = {"app_label": "namespaces", "model_name": "namespace", "field_name": "project"}
    for value in VALUES:
        assert pages.get("/admin/autocomplete/", {**field, "term": value}).status_code in (200, 400)
        for name in ("project", "owner_user", "name", "is_public", "_popup"):
            assert pages.get(url(Namespace, "add"), {name: value}).status_code == 200
        assert pages.get(url(ApiKey, "add"), {"user": value, "expires_at": value}).status_code == 200


def test_an_invalid_lookup_redirects_to_the_list(pages: Client, namespace: Namespace) -> None:
    response = pages.get(url(Namespace, "changelist"), {"image_rows__exact": "many"}, follow=True)
    assert response.status_code == 200
    assert namespace.name in response.content.decode()
