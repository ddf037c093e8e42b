"""Filters, order and pages of lists, in the variants that clients use."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from registry_control.catalog.models import Image, Tag
from registry_control.namespaces.models import Namespace
from tests.factories import TestKey, make_namespace, make_project, push_image
from tests.integration.control.api import UNKNOWN_ID, Api, Response, details

pytestmark = pytest.mark.django_db

MODELS: dict[str, type[Namespace] | type[Image] | type[Tag]] = {
    "namespaces": Namespace,
    "images": Image,
    "tags": Tag,
}
LISTS = sorted(MODELS)


QueryExecutor = Callable[..., Response]


@pytest.fixture
def fill(key: TestKey) -> Callable[[str, int], QueryExecutor]:
    """Create this many rows of a kind, named `row-00` and up; return a function that lists them."""

    def make(what: str, count: int) -> QueryExecutor:
        names = [f"row-{number:02}" for number in range(count)]
        path = f"/{what}"
        if what == "namespaces":
            for name in names:
                make_namespace(key, name)
        elif what == "images":
            namespace = make_namespace(key)
            for name in names:
                push_image(key, namespace, name)
        else:
            pushed = push_image(key, make_namespace(key), tags=names)
            path = f"/images/{pushed.image_id}/tags"
        return lambda **query: Api(key).get(path, **query)

    return make


def names(response: Response, what: str) -> list[str]:
    assert response.status == 200, response
    assert set(response.body) == {what, "total_count"}
    return [row["name"] for row in response.body[what]]


@pytest.mark.parametrize("what", LISTS)
def test_a_page_has_twenty_rows_by_default(what: str, fill: Callable[[str, int], QueryExecutor]) -> None:
    ask = fill(what, 23)
    rows = [f"row-{number:02}" for number in range(23)]
    assert names(ask(), what) == names(ask(page=1), what) == names(ask(page=0), what) == rows[:20]
    assert names(ask(page=2), what) == rows[20:]
    assert names(ask(page=2, page_size=5), what) == rows[5:10]
    assert names(ask(page_size=100), what) == rows
    assert names(ask(page="", page_size="", order_by="", name=""), what) == rows[:20]
    for query in ({}, {"page": 2}, {"page_size": 5}):
        total = ask(**query).body["total_count"]
        assert (total, type(total)) == (23, int)


@pytest.mark.parametrize("what", LISTS)
@pytest.mark.parametrize("page", [3, 999, 2**31, 2**63, 10**30, "9" * 900])
def test_a_page_after_the_end_is_empty_and_has_the_total_count(
    what: str, page: object, fill: Callable[[str, int], QueryExecutor]
) -> None:
    response = fill(what, 2)(page=page, page_size=1)
    assert (response.status, response.body) == (200, {what: [], "total_count": 2})


@pytest.mark.parametrize("what", LISTS)
@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("page", "-1", "constraint"),
        ("page", "first", "format"),
        ("page", "1.5", "format"),
        ("page", "9" * 5000, "format"),
        ("page_size", "0", "constraint"),
        ("page_size", "101", "constraint"),
        ("page_size", "-5", "constraint"),
        ("page_size", "1e2", "format"),
        ("page_size", "9" * 900, "constraint"),
        ("order_by", "status_asc", "constraint"),
        ("order_by", "created_at", "constraint"),
        ("order_by", "name_asc;drop", "constraint"),
        ("name", "nul\x00", "format"),
    ],
)
def test_invalid_pages_and_orders_are_rejected_and_not_adjusted(
    what: str, field: str, value: str, reason: str, fill: Callable[[str, int], QueryExecutor]
) -> None:
    assert details(fill(what, 1)(**{field: value})) == {field: reason}


@pytest.mark.parametrize("what", LISTS)
def test_lists_are_ordered_by_time_and_by_name_in_both_directions(
    what: str, fill: Callable[[str, int], QueryExecutor]
) -> None:
    # given three rows whose names and times have different orders
    ask = fill(what, 3)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for name, hour in (("row-00", 2), ("row-01", 0), ("row-02", 1)):
        MODELS[what].objects.filter(name=name).update(created_at=start + timedelta(hours=hour))

    # when they are listed in each order, then they are in it, and the default is oldest first
    by_time = ["row-01", "row-02", "row-00"]
    assert names(ask(), what) == names(ask(order_by="created_at_asc"), what) == by_time
    assert names(ask(order_by="created_at_desc"), what) == by_time[::-1]
    assert names(ask(order_by="name_asc"), what) == sorted(by_time)
    assert names(ask(order_by="name_desc"), what) == sorted(by_time)[::-1]


def test_namespaces_can_be_ordered_by_description(key: TestKey) -> None:
    for name, description in (("one", "b"), ("two", "a"), ("three", "c")):
        Api(key).post("/namespaces", name=name, description=description)
    assert names(Api(key).get("/namespaces", order_by="description_asc"), "namespaces") == [
        "two",
        "one",
        "three",
    ]
    assert names(Api(key).get("/namespaces", order_by="description_desc"), "namespaces") == [
        "three",
        "one",
        "two",
    ]
    assert details(Api(key).get("/images", order_by="description_asc")) == {"order_by": "constraint"}


@pytest.mark.parametrize("what", LISTS)
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_rows_with_equal_times_are_each_on_exactly_one_page(
    what: str, direction: str, fill: Callable[[str, int], QueryExecutor]
) -> None:
    ask = fill(what, 9)
    MODELS[what].objects.update(created_at=datetime(2026, 1, 1, tzinfo=UTC))
    pages = [ask(page=page, page_size=2, order_by=f"created_at_{direction}") for page in range(1, 6)]
    seen = [name for page in pages for name in names(page, what)]
    assert sorted(seen) == [f"row-{number:02}" for number in range(9)]


@pytest.mark.parametrize("what", LISTS)
def test_a_name_filter_matches_the_whole_name(what: str, fill: Callable[[str, int], QueryExecutor]) -> None:
    ask = fill(what, 2)
    assert names(ask(name="row-01"), what) == ["row-01"]
    for other in ("row", "row-0", "ROW-01", "row-01 ", "%", "row-0_"):
        assert ask(name=other).body == {what: [], "total_count": 0}


def test_filters_by_project_and_organization_are_combined(key: TestKey) -> None:
    # given namespaces in two projects of one organization
    other = make_project(key.organization)
    make_namespace(key, "in-default")
    make_namespace(key, "in-other", project=other)
    default, organization = str(key.organization.pk), str(key.organization.pk)
    api = Api(key)

    # when filters are set, then all must match, and without any filter everything is listed
    def listed(**query: object) -> list[str]:
        return names(api.get("/namespaces", **query), "namespaces")

    assert listed() == ["in-default", "in-other"]
    assert listed(organization_id=organization) == ["in-default", "in-other"]
    assert listed(project_id=default) == ["in-default"]
    assert listed(project_id=str(other.pk), organization_id=organization) == ["in-other"]
    assert listed(project_id=str(other.pk), organization_id=UNKNOWN_ID) == []
    assert listed(project_id=UNKNOWN_ID) == []
    assert listed(project_id=str(other.pk).upper(), name="in-other") == ["in-other"]


def test_images_are_filtered_by_namespace_project_and_organization(key: TestKey) -> None:
    other = make_project(key.organization)
    first, second = make_namespace(key), make_namespace(key, project=other)
    push_image(key, first, "app")
    push_image(key, second, "app")
    push_image(key, second, "db")
    api = Api(key)

    def listed(**query: object) -> list[str]:
        return names(api.get("/images", **query), "images")

    assert listed() == ["app", "app", "db"]
    assert listed(namespace_id=second.pk) == ["app", "db"]
    assert listed(namespace_id=second.pk, name="app") == ["app"]
    assert listed(project_id=other.pk) == ["app", "db"]
    assert listed(project_id=other.pk, namespace_id=first.pk) == []
    assert listed(organization_id=key.organization.pk, project_id=key.organization.pk) == ["app"]
    assert listed(namespace_id=UNKNOWN_ID) == []


@pytest.mark.parametrize(
    "value", ["not-a-uuid", "0" * 32, "%", "0b5a6c1e-4d2f-4c3b-9a8e-7f6d5c4b3a29 ", "\x00"]
)
@pytest.mark.parametrize(
    ("what", "field"),
    [
        ("namespaces", "organization_id"),
        ("namespaces", "project_id"),
        ("images", "organization_id"),
        ("images", "project_id"),
        ("images", "namespace_id"),
    ],
)
def test_filters_that_are_not_ids_are_rejected(key: TestKey, what: str, field: str, value: str) -> None:
    assert details(Api(key).get(f"/{what}", **{field: value})) == {field: "format"}


def test_unknown_parameters_are_ignored(key: TestKey) -> None:
    assert Api(key).get("/namespaces", instance_id="x", per_page=3).status == 200
