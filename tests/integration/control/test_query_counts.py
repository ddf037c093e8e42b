"""Every operation has a budget of SQL statements, which does not depend on the number of rows."""

from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from registry_control.catalog.models import Blob
from registry_control.integrity.policy import Content, Finding
from registry_control.integrity.services import faults
from tests.factories import Pushed, TestKey, make_key, make_namespace, push_blob, push_image, unique
from tests.integration.control.api import Api

pytestmark = pytest.mark.django_db

V1BETA1 = "/registry/v1beta1/regions/fr-par"
RETENTION: dict[str, object] = {"rules": [{"images": "*", "tags": "*", "keep_newest": 3}]}

# Number of statements, without those of transactions (BEGIN, SAVEPOINT).
BUDGET = {
    "GET /namespaces": 3,  # key, count, page with usage
    "POST /namespaces": 6,  # key, project, namespace and its retention, audit, namespace with its sums
    "GET /namespaces/{n}": 2,
    "PATCH /namespaces/{n}": 5,  # key, row, update, change log, audit
    "DELETE /namespaces/{n}": 6,  # and protected tags
    # key, whether namespaces are in the recycle bin,
    "GET /images": 6,  # counts per namespace, images without pushes, page, names of tags
    "GET /images/{i}": 3,
    "PATCH /images/{i}": 6,  # key, row, update, change log, audit, names of tags
    "DELETE /images/{i}": 7,
    "GET /images/{i}/tags": 3,  # key, image with the number of its tags, page
    "GET /tags/{t}": 2,
    # key, tag, image's row, tag's row, protected tags, update, change log; what the tag reaches, whether
    # something else does, marks of manifest and links, bytes; image, audit
    "DELETE /tags/{t}": 14,
    "GET {v1beta1}/namespaces/{n}/retention": 3,  # key, namespace, row
    # key, namespace, time, row, its pass: both read and written; audit
    "PUT {v1beta1}/namespaces/{n}/retention": 8,
    # key, namespace, time, images, tags to find the newest, tags, digests; and the ends of these lists
    "POST {v1beta1}/namespaces/{n}/retention/preview": 10,
}
BODIES: dict[str, Callable[[], dict[str, object]]] = {
    "POST /namespaces": lambda: {"name": unique("new")},
    "PATCH /namespaces/{n}": lambda: {"is_public": True, "description": "other"},
    "PATCH /images/{i}": lambda: {"visibility": "public"},
    "PUT {v1beta1}/namespaces/{n}/retention": lambda: RETENTION,
    "POST {v1beta1}/namespaces/{n}/retention/preview": lambda: RETENTION,
}


@pytest.fixture
def pushed(key: TestKey) -> Pushed:
    return push_image(key, make_namespace(key))


def more(key: TestKey) -> None:
    """Create eleven namespaces with up to four images each, with up to three tags each; also policies."""
    for number in range(11):
        namespace = make_namespace(key)
        for image in range(number % 5):
            push_image(key, namespace, f"image-{image}", tags=["a", "b", "c"][: image % 4])
    for _ in range(3):
        make_key(holder=key.holder)


@pytest.mark.parametrize("rows", ["few", "many"])
@pytest.mark.parametrize("operation", BUDGET)
def test_an_operation_stays_within_its_budget(
    key: TestKey, pushed: Pushed, operation: str, rows: str
) -> None:
    # given one row of each kind, or many more
    if rows == "many":
        more(key)
    method, template = operation.split()
    path = template.format(
        v1beta1=V1BETA1, n=pushed.image.namespace_id, i=pushed.image_id, t=pushed.tag("latest").pk
    )
    body = BODIES[operation]() if operation in BODIES else None

    # when the operation runs
    with CaptureQueriesContext(connection) as captured:
        response = Api(key).call(method, path, body)

    # then the number of statements is that of the table
    assert response.status == 200
    statements = [query["sql"] for query in captured.captured_queries if not is_control(query["sql"])]
    assert len(statements) == BUDGET[operation], "\n".join(statements)


@pytest.mark.parametrize("findings", [2, 40])
def test_the_findings_of_scrubbing_cost_the_same_however_many_there_are(
    operator: TestKey, pushed: Pushed, findings: int
) -> None:
    # given damaged and missing blobs that an image has
    for number in range(findings):
        blob = Blob.objects.get(digest=push_blob(operator, pushed.image_id, b"layer %d" % number))
        content = Content.MISSING if number % 2 else Content.DAMAGED
        assert faults.settle(blob.pk, key=blob.storage_key, finding=Finding(content))

    # when an operator reads them
    with CaptureQueriesContext(connection) as captured:
        response = Api(operator).get(f"{V1BETA1}/gc/scrub")

    # then the number of statements is always the same
    assert (len(response.body["damaged"]), response.body["damaged_total"]) == (findings / 2, findings / 2)
    assert response.body["missing"][0]["images"] == [str(pushed.image)]
    # key, operator, two lists of each kind, links, leases, time and coverage, totals; rows of the queue of
    # second looks, job and unknown objects of reconciling, errors of jobs and of blobs
    statements = [query["sql"] for query in captured.captured_queries]
    assert len(statements) == 16, "\n".join(statements)


def is_control(sql: str) -> bool:
    return sql.startswith(("BEGIN", "SAVEPOINT", "RELEASE", "COMMIT"))
