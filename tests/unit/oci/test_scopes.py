import pytest

from registry_data.oci.scopes import SCOPE_LIMIT, Scope, format_scope, parse_scopes


def scope(kind: str, name: str, *actions: str) -> Scope:
    return Scope(kind, name, frozenset(actions))


@pytest.mark.oci(151)
@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("repository:acme/app:pull", scope("repository", "acme/app", "pull")),
        ("repository:acme/app:push,pull", scope("repository", "acme/app", "pull", "push")),
        ("repository:acme/app:*", scope("repository", "acme/app", "*")),
        ("repository:acme/app:", scope("repository", "acme/app")),
        ("repository:acme/app:pull,,pull,", scope("repository", "acme/app", "pull")),
        ("repository(plugin):acme/app:pull", scope("repository", "acme/app", "pull")),
        ("repository:localhost:5000/acme/app:pull", scope("repository", "localhost:5000/acme/app", "pull")),
        ("registry:catalog:*", scope("registry", "catalog", "*")),
        ("whatever:x:dance", scope("whatever", "x", "dance")),
    ],
)
def test_a_scope_has_a_type_a_name_and_actions(text: str, parsed: Scope) -> None:
    assert parse_scopes([text]) == (parsed,)


def test_scopes_are_parsed_from_repeated_and_space_separated_values_in_order() -> None:
    values = ["repository:b/b:pull  repository:a/a:pull", "", "registry:catalog:*"]
    assert [parsed.name for parsed in parse_scopes(values)] == ["b/b", "a/a", "catalog"]


@pytest.mark.oci(150)
def test_scopes_on_one_resource_are_merged() -> None:
    # as containerd sends them, with another scope in between
    requested = [
        "repository:a/a:pull",
        "repository:b/b:pull",
        "repository(x):a/a:pull,push",
        "other:a/a:pull",
    ]
    assert parse_scopes(requested) == (
        scope("repository", "a/a", "pull", "push"),
        scope("repository", "b/b", "pull"),
        scope("other", "a/a", "pull"),
    )


@pytest.mark.oci(151)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "pull",
        "repository:pull",
        "repository::pull",
        ":acme/app:pull",
        "Repository:acme/app:pull",
        "repository():acme/app:pull",
        "repository(plugin:acme/app:pull",
        "repository:acme/app:PULL",
        "repository:äcme/app:pull",
        "repository:acme\0/app:pull",
    ],
)
def test_malformed_scopes_are_ignored(text: str) -> None:
    assert parse_scopes([text, "repository:a/a:pull"]) == (scope("repository", "a/a", "pull"),)


def test_no_scope_is_valid() -> None:
    assert parse_scopes([]) == ()


def test_resources_beyond_the_limit_are_ignored_and_the_others_still_merged() -> None:
    names = [f"a/{number}" for number in range(SCOPE_LIMIT + 5)]
    requested = [f"repository:{name}:pull" for name in names] + [
        "repository:a/0:push",
        "repository:late:pull",
    ]
    parsed = parse_scopes(requested)
    assert [one.name for one in parsed] == names[:SCOPE_LIMIT]
    assert parsed[0] == scope("repository", "a/0", "pull", "push")


def test_a_scope_is_formatted_with_sorted_actions() -> None:
    assert format_scope(scope("repository", "acme/app", "push", "pull")) == "repository:acme/app:pull,push"
    assert format_scope(scope("repository", "acme/app")) == "repository:acme/app:"
