"""The unmodified PyPI package `scaleway` against the running product: only `api_url` and the keys are set."""

import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from scaleway import Client, ScalewayException
from scaleway.registry.v1 import (
    ImageVisibility,
    ListNamespacesRequestOrderBy,
    RegistryV1API,
)
from scaleway_core.utils import WaitForOptions

from tests.integration.control.api import UNKNOWN_ID
from tests.integration.control.sdk import Tenant, client_of, make_tenant
from tests.oci_client import OciClient
from tests.services.stack import Stack


@pytest.fixture(scope="module")
def tenant(stack: Stack) -> Iterator[Tenant]:
    """One organization for all tests that read their own namespaces only."""
    made = make_tenant(stack)
    with made.oci:
        yield made


@pytest.fixture
def other(stack: Stack) -> Iterator[Tenant]:
    """An organization without any namespace."""
    made = make_tenant(stack)
    with made.oci:
        yield made


def error_of(error: pytest.ExceptionInfo[ScalewayException]) -> tuple[int, str]:
    """Status and type of the error; the body is JSON, or the SDK could not have raised its own exception."""
    body = error.value.response.json()
    assert error.value.response.headers["Content-Type"] == "application/json"
    assert isinstance(body["message"], str)
    return error.value.status_code, body["type"]


def test_a_client_is_configured_by_the_environment_or_by_a_file(
    stack: Stack, tenant: Tenant, tmp_path: Path
) -> None:
    # given a configuration file as `scw` writes it
    file = tmp_path / "config.yaml"
    file.write_text(
        f"access_key: {tenant.access_key}\nsecret_key: {tenant.secret_key}\n"
        f"api_url: {stack.credentials.control_url}\ndefault_region: fr-par\n"
        f"default_organization_id: {tenant.organization_id}\n"
    )
    # when a client is created from it, then it works
    client = Client.from_config_file_and_env(str(file))
    made = tenant.namespace()
    assert RegistryV1API(client).get_namespace(namespace_id=made.id) == made


def test_a_created_namespace_has_the_requested_values(tenant: Tenant) -> None:
    made = tenant.namespace()
    assert (made.status, made.region, made.description) == ("ready", "fr-par", "d")
    assert made.endpoint.endswith(f"/{made.name}")
    assert made.project_id == made.organization_id == tenant.organization_id
    assert made.created_at is not None
    assert made.created_at.utcoffset() == timedelta(0)
    assert tenant.api.get_namespace(namespace_id=made.id) == made

    # and names that the SDK generates, and an empty description, are accepted
    assert tenant.api.create_namespace(description="", is_public=False).name.startswith("ns-")


def test_a_duplicate_name_is_an_error_with_a_message(tenant: Tenant) -> None:
    made = tenant.namespace()
    with pytest.raises(ScalewayException) as error:
        tenant.api.create_namespace(name=made.name, description="", is_public=False)
    assert error_of(error) == (409, "already_exists")


def test_lists_page_order_and_filter(other: Tenant) -> None:
    # given 25 namespaces
    made = {other.namespace(description=f"{number % 7}").id for number in range(25)}
    api = other.api

    # when they are listed page by page, then the counts are numbers, and a page after the end is empty
    first = api.list_namespaces()
    assert (len(first.namespaces), first.total_count) == (20, 25)
    assert len(api.list_namespaces(page=2).namespaces) == 5
    beyond = api.list_namespaces(page=999)
    assert (beyond.namespaces, beyond.total_count) == ([], 25)
    assert len(api.list_namespaces(page_size=100).namespaces) == 25
    with pytest.raises(ScalewayException) as error:
        api.list_namespaces(page_size=101)
    assert error_of(error) == (400, "invalid_arguments")

    # when all are fetched, then there are no duplicates and none is missing
    for page_size in (None, 5):
        found = [namespace.id for namespace in api.list_namespaces_all(page_size=page_size)]
        assert (len(found), set(found)) == (25, made)

    # when they are ordered or filtered by name, then the result is correct
    for order in ListNamespacesRequestOrderBy:
        field, _, direction = order.value.rpartition("_")
        values = [getattr(namespace, field) for namespace in api.list_namespaces_all(order_by=order)]
        assert values == sorted(values, reverse=direction == "desc")
    name = first.namespaces[3].name
    assert [found.name for found in api.list_namespaces_all(name=name)] == [name]
    assert api.list_namespaces_all(name=name[:-1]) == []


def test_updates_change_only_the_given_fields(tenant: Tenant) -> None:
    made = tenant.namespace()
    public = tenant.api.update_namespace(namespace_id=made.id, is_public=True)
    assert (public.is_public, public.description) == (True, "d")
    bare = tenant.api.update_namespace(namespace_id=made.id, description="")
    assert (bare.is_public, bare.description) == (True, "")
    assert tenant.api.update_namespace(namespace_id=made.id) == bare


def test_pushed_images_and_tags_are_listed(tenant: Tenant) -> None:
    # given two tags on one digest, and a nested name
    namespace = tenant.namespace()
    digest = tenant.push(namespace, "alpine", "a", "b")
    tenant.push(namespace, "x/y", "1")

    # when images are listed, then they are the pushed ones
    images = {image.name: image for image in tenant.api.list_images_all(namespace_id=namespace.id)}
    assert images.keys() == {"alpine", "x/y"}
    assert {image.visibility for image in images.values()} == {ImageVisibility.INHERIT}
    assert sorted(images["alpine"].tags) == ["a", "b"]
    assert all(image.size > 0 for image in images.values())
    counted = tenant.api.get_namespace(namespace_id=namespace.id)
    assert (counted.image_count, counted.size) == (2, sum(image.size for image in images.values()))

    # and so are tags
    tags = tenant.api.list_tags_all(image_id=images["alpine"].id)
    assert sorted(tag.name for tag in tags) == ["a", "b"]
    assert {tag.digest for tag in tags} == {digest}
    assert tenant.api.get_tag(tag_id=tags[0].id) == tags[0]


@pytest.mark.parametrize("is_public", [False, True])
def test_a_visibility_that_is_set_decides_the_next_pull(
    stack: Stack, tenant: Tenant, *, is_public: bool
) -> None:
    namespace = tenant.namespace(is_public=is_public)
    tenant.push(namespace, "app", "1")
    [image] = tenant.api.list_images_all(namespace_id=namespace.id)
    with OciClient(stack.credentials.registry_host, None) as anonymous:
        for visibility in (ImageVisibility.PRIVATE, ImageVisibility.PUBLIC, ImageVisibility.INHERIT):
            changed = tenant.api.update_image(image_id=image.id, visibility=visibility)
            assert changed.visibility == visibility
            public = visibility == "public" or (visibility == "inherit" and is_public)
            assert anonymous.pull_status(f"{namespace.name}/app", "1") == (200 if public else 401)
        assert tenant.api.update_image(image_id=image.id).visibility == ImageVisibility.INHERIT


def test_deleted_objects_are_gone_within_seconds_and_their_names_are_free(tenant: Tenant) -> None:
    # given two tags on one digest
    namespace = tenant.namespace()
    tenant.push(namespace, "alpine", "a", "b")
    [image] = tenant.api.list_images_all(namespace_id=namespace.id)
    tag = next(tag for tag in tenant.api.list_tags_all(image_id=image.id) if tag.name == "a")
    soon: WaitForOptions[object, bool] = WaitForOptions(timeout=60, min_delay=1, max_delay=2)

    # when a tag is deleted, with the deprecated `force`, then it is gone soon and the other one remains
    assert tenant.api.delete_tag(tag_id=tag.id, force=True).status == "deleting"
    with pytest.raises(ScalewayException) as error:
        tenant.api.wait_for_tag(tag_id=tag.id, options=soon)
    assert error_of(error) == (404, "not_found")
    assert tenant.oci.pull_status(f"{namespace.name}/alpine", "b") == 200
    assert tenant.oci.pull_status(f"{namespace.name}/alpine", "a") in (401, 404)

    # when the image is deleted, then the same
    assert tenant.api.delete_image(image_id=image.id).status == "deleting"
    with pytest.raises(ScalewayException) as error:
        tenant.api.wait_for_image(image_id=image.id, options=soon)
    assert error_of(error) == (404, "not_found")

    # when the namespace is deleted while it has an image, then both are deleted, and the name is free
    tenant.push(namespace, "other", "1")
    assert tenant.api.delete_namespace(namespace_id=namespace.id).status == "deleting"
    again = tenant.api.create_namespace(name=namespace.name, description="", is_public=False)
    assert again.id != namespace.id
    with pytest.raises(ScalewayException) as error:
        tenant.api.wait_for_namespace(namespace_id=namespace.id, options=soon)
    assert error_of(error) == (404, "not_found")
    assert tenant.api.list_images_all(namespace_id=again.id) == []


def test_a_repeated_deletion_is_not_an_error(tenant: Tenant) -> None:
    made = tenant.namespace()
    assert tenant.api.delete_namespace(namespace_id=made.id).status == "deleting"
    status, deadline = 200, time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.2)
        try:
            assert tenant.api.delete_namespace(namespace_id=made.id).status == "deleting"
        except ScalewayException as error:
            status = error.status_code
            break
    assert status == 404


@pytest.mark.parametrize("given", [UNKNOWN_ID, UNKNOWN_ID.upper(), "not-a-uuid"])
def test_unknown_ids_are_json_404(tenant: Tenant, given: str) -> None:
    for call in (
        partial(tenant.api.get_namespace, namespace_id=given),
        partial(tenant.api.delete_image, image_id=given),
        partial(tenant.api.get_tag, tag_id=given),
    ):
        with pytest.raises(ScalewayException) as error:
            call()
        assert error_of(error) == (404, "not_found")


def test_a_wrong_secret_and_an_unknown_region_are_json_errors(stack: Stack, tenant: Tenant) -> None:
    key = {
        "access_key": tenant.access_key,
        "secret_key": str(uuid4()),
        "organization_id": tenant.organization_id,
    }
    stranger = RegistryV1API(client_of(stack, {**key, "project_id": tenant.organization_id}))
    with pytest.raises(ScalewayException) as error:
        stranger.list_namespaces()
    assert error_of(error) == (401, "denied_authentication")
    with pytest.raises(ScalewayException) as error:
        tenant.api.list_namespaces(region="zz-zzz")
    assert error_of(error) == (404, "not_found")


def test_a_key_of_another_organization_sees_nothing(tenant: Tenant, other: Tenant) -> None:
    namespace = tenant.namespace()
    for call in (other.api.get_namespace, other.api.delete_namespace):
        with pytest.raises(ScalewayException) as error:
            call(namespace_id=namespace.id)
        assert error_of(error) == (404, "not_found")
    assert other.api.list_namespaces_all() == []
    assert other.api.list_namespaces_all(organization_id=tenant.organization_id) == []
