"""Every route of the data plane has a budget of SQL statements, which does not depend on the content."""

from collections.abc import Mapping
from typing import Final

import pytest

from tests.integration.growth.routes import ROUTES
from tests.integration.growth.watched import Watched

pytestmark = pytest.mark.django_db

# Number of statements, without those of transactions (BEGIN, SAVEPOINT).
BUDGET: Final[Mapping[str, int | range]] = {
    "GET /v2/": 1,  # key
    "GET manifest by tag": 3,  # key, tag with all the facts, bytes (the first time)
    "GET manifest by digest": 3,
    "HEAD manifest by tag": 2,
    "HEAD manifest by digest": 2,
    # key, facts, image's row, manifest, tag; who awaits it, blobs, manifest's row, links, tag's row, audit;
    # change log; rules that replicate pushes; image's size and time
    "PUT manifest": 14,
    "PUT manifest again": 5,  # key, facts, image's row, manifest, tag
    # and children, what they reach level by level, whether they were reached before, marks, bytes
    "PUT index": 21,
    # key, facts, image's row, tag, its deletion, change log; what the tag reaches, mark of the manifest
    # unless others reach it, marks of links, bytes; image, audit
    "DELETE tag": 12,
    "DELETE manifest": 25,  # and protected tags, the image's organization and the rows of the review queue
    "GET blob": 2,  # key, blob with all the facts
    "HEAD blob": 2,
    "DELETE blob": 8,  # key, facts, image's row, links, lease, its organization, review queue, audit
    "POST upload": 3,  # key, facts, session unless too many are under way
    "POST first upload of an image": 8,  # and namespace's row, image, its row, how many there are, audit
    "POST whole blob": 12,
    "PATCH upload": 3,  # key, facts, session
    "PUT upload": 9,  # key, facts, session; whether it is there, image's row, session, blob, its row, lease
    "PUT upload of what is there": 8,
    "GET upload": 3,
    "DELETE upload": 6,  # key, facts, session, its end, a blob or copy of its bytes, its row
    "POST mount": 6,  # key, facts, source's facts, image's row, blob, lease
    "POST mount from anywhere": 8,  # and images that have it, by link and by lease
    "GET tags": 3,  # key, facts, names
    "GET referrers": range(3, 5),  # key, facts, sizes; what is shown, if anything is
    "GET catalog": range(3, 8),  # key, namespaces, names in 1 of them, in 4, in 16 ... until the page is full
    "GET token": 3,  # key, facts of the scope, signing key
    "POST token": 3,
    "GET keys": 1,
    "GET health": 1,
}


def test_every_route_has_a_budget() -> None:
    assert BUDGET.keys() == ROUTES.keys()


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_stays_within_its_budget(
    statements_when_new: Mapping[str, Watched], statements_when_grown: Mapping[str, Watched], route: str
) -> None:
    # given a route used in an empty registry, and for an image with many layers in a large one
    for watched_routes in (statements_when_new, statements_when_grown):
        watched = watched_routes[route]
        assert watched.response.is_success, watched.response.text

        # then the number of statements is within the budget
        statements = [statement.sql for statement in watched.statements]
        budget = BUDGET[route]
        allowed = [budget] if isinstance(budget, int) else budget
        assert len(statements) in allowed, "\n".join(statements)
