"""Authorization in the management API: a table of callers and operations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from registry_control.namespaces.models import Namespace
from tests.factories import (
    FULL_ACCESS,
    PUSH,
    READ_ONLY,
    Pushed,
    TestKey,
    make_key,
    make_namespace,
    make_project,
    make_user,
    push_image,
)
from tests.integration.control.api import UNKNOWN_ID, Api, Response

pytestmark = pytest.mark.django_db


@dataclass
class Scene:
    """A namespace with a pushed image, in a project that is not the default one."""

    owner: TestKey
    namespace: Namespace
    pushed: Pushed

    def path(self, template: str) -> str:
        return template.format(n=self.namespace.pk, i=self.pushed.image_id, t=self.pushed.tag("latest").pk)


@pytest.fixture(params=[False, True], ids=["private", "public"])
def scene(request: pytest.FixtureRequest) -> Scene:
    """Visibility affects pulls and not the management API: every case runs with both."""
    owner = make_key(READ_ONLY, FULL_ACCESS)
    project = make_project(owner.organization)
    namespace = make_namespace(owner, project=project, is_public=request.param)
    return Scene(owner, namespace, push_image(owner, namespace))


def in_organization(**options: Any) -> Callable[[Scene], TestKey]:
    sets = options.pop("sets", ())
    return lambda scene: make_key(*sets, organization=scene.owner.organization, **options)


def on_project(permission_set: Any) -> Callable[[Scene], TestKey]:
    return lambda scene: make_key(
        permission_set, organization=scene.owner.organization, project=scene.namespace.project
    )


def owner_without_rights(scene: Scene) -> TestKey:
    """The namespace belongs to an application without a policy."""
    user = make_user(scene.owner.organization)
    Namespace.objects.update(owner_application=None, owner_user=user)
    return make_key(holder=user, rights=False)


CALLERS: dict[str, Callable[[Scene], TestKey | None]] = {
    "anonymous": lambda _: None,
    "stranger": lambda _: make_key(FULL_ACCESS),
    "member without rights": in_organization(rights=False),
    "full access elsewhere": lambda scene: make_key(
        FULL_ACCESS, organization=scene.owner.organization, project=make_project(scene.owner.organization)
    ),
    "reader": in_organization(sets=[READ_ONLY]),
    "reader of the project": on_project(READ_ONLY),
    "pusher": in_organization(sets=[PUSH]),
    "full access": in_organization(sets=[FULL_ACCESS]),
    "full access to the project": on_project(FULL_ACCESS),
    "owner without rights": owner_without_rights,
    "creator": lambda scene: scene.owner,
}
NOBODY = {"anonymous"}
OUTSIDE = {"stranger", "member without rights", "full access elsewhere"}
READS_ONLY = {"reader", "reader of the project", "pusher"}

READS = ["/namespaces/{n}", "/images/{i}", "/images/{i}/tags", "/tags/{t}"]
WRITES = [
    ("PATCH", "/namespaces/{n}", {"is_public": True}, ("write", "registry_namespace")),
    ("PATCH", "/namespaces/{n}", {}, ("write", "registry_namespace")),
    ("DELETE", "/namespaces/{n}", None, ("delete", "registry_namespace")),
    ("PATCH", "/images/{i}", {"visibility": "public"}, ("write", "registry_image")),
    ("DELETE", "/images/{i}", None, ("delete", "registry_image")),
    ("DELETE", "/tags/{t}", None, ("delete", "registry_tag")),
]
HISTORY = (
    "GET",
    "/registry/v1beta1/regions/fr-par/tags/{t}/history",
    None,
    ("read", "registry_tag_history"),
)


def expected(caller: str, *, write: bool) -> int:
    if caller in NOBODY:
        return 401
    if caller in OUTSIDE:
        return 404
    return 403 if write and caller in READS_ONLY else 200


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("template", READS)
def test_reading(scene: Scene, caller: str, template: str) -> None:
    response = Api(CALLERS[caller](scene)).get(scene.path(template))
    assert response.status == expected(caller, write=False)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("method", "template", "body", "denied"), [*WRITES, HISTORY])
def test_writing_and_reading_who_set_a_tag(
    scene: Scene,
    caller: str,
    method: str,
    template: str,
    body: dict[str, object] | None,
    denied: tuple[str, str],
) -> None:
    before = state(scene)
    response = Api(CALLERS[caller](scene)).call(method, scene.path(template), body)
    assert response.status == expected(caller, write=True)
    if response.status != 200:
        assert state(scene) == before
    if response.status == 403:
        assert response.body == {
            "type": "permissions_denied",
            "message": "insufficient permissions",
            "details": [dict(zip(("action", "resource"), denied, strict=True))],
        }


def state(scene: Scene) -> tuple[object, ...]:
    namespace = Namespace.objects.get()
    image, tag = scene.pushed.image, scene.pushed.tag("latest")
    return (namespace.status, namespace.is_public, image.status, image.visibility, tag.status)


@pytest.mark.parametrize("caller", sorted(CALLERS.keys() - NOBODY))
def test_lists_contain_exactly_what_the_caller_may_read(scene: Scene, caller: str) -> None:
    # given another namespace that each caller may read
    key = CALLERS[caller](scene)
    assert key is not None
    sees = expected(caller, write=False) == 200

    # when lists are read with the owner's own filters, and without any
    for query in ({}, {"organization_id": scene.owner.organization.pk}):
        namespaces = Api(key).get("/namespaces", **query).body
        images = Api(key).get("/images", **query).body

        # then both contain the scene's row, or neither does
        assert [row["id"] for row in namespaces["namespaces"]] == [str(scene.namespace.pk)] * sees
        assert [row["id"] for row in images["images"]] == [str(scene.pushed.image_id)] * sees
        assert namespaces["total_count"] == images["total_count"] == int(sees)


@pytest.mark.parametrize(
    ("caller", "status"),
    [
        ("anonymous", 401),
        ("stranger", 400),  # the project is not there for them
        ("member without rights", 403),
        ("full access elsewhere", 403),
        ("reader", 403),
        ("pusher", 403),
        ("full access", 200),
        ("full access to the project", 200),
        ("owner without rights", 403),  # owning one namespace is no right to create others
        ("creator", 200),
    ],
)
def test_creating_in_the_scenes_project(scene: Scene, caller: str, status: int) -> None:
    project = str(scene.namespace.project_id)
    response = Api(CALLERS[caller](scene)).post("/namespaces", name="another", project_id=project)
    assert response.status == status
    assert Namespace.objects.filter(name="another").exists() == (status == 200)


@pytest.mark.parametrize("caller", sorted(OUTSIDE))
def test_invariant_9_missing_and_forbidden_look_alike(scene: Scene, caller: str) -> None:
    api = Api(CALLERS[caller](scene))
    reads = [("GET", template, None, None) for template in READS]
    for method, template, body, _ in (*reads, *WRITES):
        theirs = api.call(method, scene.path(template), body)
        missing = api.call(method, template.format(n=UNKNOWN_ID, i=UNKNOWN_ID, t=UNKNOWN_ID), body)
        assert alike(theirs) == alike(missing)


def alike(response: Response) -> tuple[object, ...]:
    """The response without the request id and the requested resource id."""
    headers = {name: value for name, value in response.headers.items() if name != "X-Request-Id"}
    return response.status, headers, {**response.body, "resource_id": "X"}
