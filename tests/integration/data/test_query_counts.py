"""A budget of SQL for every route of the data plane, which does not grow with what there is."""

from pathlib import Path
from typing import Final

import pytest

from tests.factories import make_key, make_namespace, push_image, unique
from tests.integration.data.routes import ROUTES, Scene, make_scene

# Transactions end when the requests do: those run in threads with connections of their own.
pytestmark = pytest.mark.django_db(transaction=True)

# Statements; transactions' own (BEGIN, SAVEPOINT) are not counted.
BUDGET: Final = {
    "GET /v2/": 1,  # key
    "GET manifest by tag": 3,  # key, tag with all the facts, bytes (the first time)
    "GET manifest by digest": 3,
    "HEAD manifest by tag": 2,
    "HEAD manifest by digest": 2,
    # key and facts (twice: before the body and after), image's row, manifest, blobs, their touch, what is
    # linked already, image's size, manifest, links, audit; tag, its row, audit; image's time
    "PUT manifest": 17,
    "PUT manifest again": 7,  # key and facts twice, image's row, manifest, tag
    "PUT index": 14,
    "DELETE tag": 7,  # key, facts, image's row, tag, its deletion, image's time, audit
    "DELETE manifest": 14,
    "GET blob": 2,  # key, blob with all the facts
    "HEAD blob": 2,
    "DELETE blob": 6,  # key, facts, image's row, links, lease, audit
    "POST upload": 4,  # key, facts, image's row, session
    "POST first upload of an image": 8,  # and namespace's row, image, its row, audit
    "POST whole blob": 12,
    "PATCH upload": 4,  # key, facts, session, its life
    "PUT upload": 8,  # key, facts, session; image's row, session, blob, its row, lease
    "GET upload": 3,
    "DELETE upload": 6,
    "POST mount": 6,  # key, facts, source's facts, image's row, touch, lease
    "POST mount from anywhere": 8,  # and images that have it, by link and by lease
    "GET tags": 3,  # key, facts, names
    "GET referrers": 3,
    "GET catalog": 2,  # key, names
    "GET token": 3,  # key, facts of the scope, signing key
    "POST token": 3,
    "GET keys": 1,
    "GET health": 1,
}


@pytest.fixture
def few(tmp_path: Path) -> Scene:
    """One image of three layers."""
    key = make_key()
    return make_scene(tmp_path, key, make_namespace(key), layers=3)


@pytest.fixture
def many(tmp_path: Path) -> Scene:
    """An image of 30 layers among others, which have many tags."""
    key = make_key()
    namespace = make_namespace(key)
    for number in range(12):
        push_image(key, namespace, f"image-{number}", tags=[unique("tag") for _ in range(10)])
        make_namespace(key)
    for _ in range(3):
        make_key(holder=key.holder)
    return make_scene(tmp_path, key, namespace, layers=30)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("rows", ["few", "many"])
def test_a_route_keeps_its_budget(request: pytest.FixtureRequest, route: str, rows: str) -> None:
    # given one image, or one with more layers among many
    scene: Scene = request.getfixturevalue(rows)

    # when the route is used
    watched = ROUTES[route](scene)

    # then it has asked the database as often as the table says
    assert watched.response.is_success, watched.response.text
    statements = [statement.sql for statement in watched.statements]
    assert len(statements) == BUDGET[route], "\n".join(statements)
