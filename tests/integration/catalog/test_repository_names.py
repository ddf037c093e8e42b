"""The pages of the catalog equal slices of the sorted list of all names."""

import pytest

from registry_control.catalog.selectors.content import repository_names
from tests.factories import make_key, make_namespace, push_image

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_every_page_has_the_names_after_the_given_one_in_byte_order(limit: int) -> None:
    # given namespaces whose order differs from that of the full names in them, one of them empty
    key = make_key()
    for namespace, images in {
        "name": ["b", "a/c", "a"],
        "name-b": ["x"],
        "name0": ["y", "z"],
        "namea": [],
        "nbme": ["a"],
    }.items():
        made = make_namespace(key, namespace)
        for image in images:
            push_image(key, made, image)
    names = sorted(["name/b", "name/a/c", "name/a", "name-b/x", "name0/y", "name0/z", "nbme/a"])

    # when a page is read after a name, a prefix of one, or a text that is no name
    others = [
        "",
        "a",
        "name",
        "name/",
        "name-",
        "name-b",
        "name/a/",
        "namea/",
        "namea/q",
        "b",
        "/",
        "name//",
        "z/z",
    ]
    for after in names + others:
        page = repository_names(key.principal, after=after, limit=limit)

        # then it has the names after this text
        assert page == [name for name in names if name > after][:limit], after


def test_a_page_contains_images_after_many_empty_namespaces() -> None:
    # given more namespaces than one query reads, of which only the last one has an image
    key = make_key()
    for number in range(450):
        last = make_namespace(key, f"empty-{number:03}")
    push_image(key, last, "app")

    # when the first page is read
    page = repository_names(key.principal, after="", limit=10)

    # then it contains the image
    assert page == ["empty-449/app"]
