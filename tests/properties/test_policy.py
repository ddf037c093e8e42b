"""Properties of the authorization decision, for any facts."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from registry_control.access.policy import (
    ANONYMOUS,
    Action,
    Facts,
    Kind,
    NamespaceFacts,
    Principal,
    Right,
    Role,
    Visibility,
    decide,
    facts_for,
    role_of,
)

IDS = st.sampled_from([UUID(int=number) for number in range(1, 5)])
PERMISSION_SETS = st.sampled_from(
    ["ContainerRegistryReadOnly", "ContainerRegistryPush", "ContainerRegistryFullAccess", "SomethingElse"]
)
RIGHTS = st.builds(Right, PERMISSION_SETS, st.none() | IDS)
PRINCIPALS = st.builds(
    Principal,
    kind=st.sampled_from([Kind.USER, Kind.APPLICATION]),
    id=IDS,
    name=st.just("someone"),
    organization_id=st.none() | IDS,
    default_project_id=st.none(),
    access_key=st.just("SCWXXXXXXXXXXXXXXXXX"),
    rights=st.lists(RIGHTS, max_size=4).map(tuple),
)
NAMESPACES = st.builds(
    NamespaceFacts, project_id=IDS, organization_id=IDS, owner_id=st.none() | IDS, is_public=st.booleans()
)
FACTS = st.builds(
    Facts, role=st.sampled_from(Role), namespace_is_public=st.booleans(), image=st.sampled_from(Visibility)
)
ACTIONS = st.sampled_from(Action)
VISIBILITIES = st.none() | st.sampled_from(Visibility)


@given(ACTIONS, FACTS, st.sampled_from(Role))
def test_a_higher_role_has_all_rights_of_a_lower_one(action: Action, facts: Facts, higher: Role) -> None:
    if higher >= facts.role and decide(action, facts).allowed:
        assert decide(action, Facts(higher, facts.namespace_is_public, facts.image)).allowed


@given(ACTIONS, FACTS)
def test_without_a_role_only_a_public_pull_is_allowed(action: Action, facts: Facts) -> None:
    nobody = Facts(Role.NONE, facts.namespace_is_public, facts.image)
    public = facts.image is Visibility.PUBLIC or (
        facts.image is Visibility.INHERIT and facts.namespace_is_public
    )
    assert decide(action, nobody).allowed == (action is Action.PULL and public)


@given(ACTIONS, FACTS)
def test_visibility_decides_pulls_only(action: Action, facts: Facts) -> None:
    if action is not Action.PULL:
        answers = {
            decide(action, Facts(facts.role, public, image)).allowed
            for public in (True, False)
            for image in Visibility
        }
        assert len(answers) == 1


@given(ACTIONS, FACTS)
def test_every_decision_has_a_reason(action: Action, facts: Facts) -> None:
    assert decide(action, facts).reason


@given(PRINCIPALS, NAMESPACES)
def test_no_role_applies_to_another_organization(principal: Principal, namespace: NamespaceFacts) -> None:
    if principal.organization_id != namespace.organization_id:
        assert role_of(principal, namespace) is Role.NONE


@given(PRINCIPALS, NAMESPACES)
def test_an_owner_in_the_organization_is_its_administrator(
    principal: Principal, namespace: NamespaceFacts
) -> None:
    if principal.organization_id == namespace.organization_id and principal.id == namespace.owner_id:
        assert role_of(principal, namespace) is Role.ADMIN


@given(PRINCIPALS, NAMESPACES, RIGHTS)
def test_an_additional_right_never_lowers_a_role(
    principal: Principal, namespace: NamespaceFacts, right: Right
) -> None:
    more = Principal(
        principal.kind,
        principal.id,
        principal.name,
        principal.organization_id,
        principal.default_project_id,
        principal.access_key,
        (*principal.rights, right),
    )
    assert role_of(more, namespace) >= role_of(principal, namespace)


@given(ACTIONS, VISIBILITIES, NAMESPACES)
def test_an_anonymous_caller_can_only_pull_public_images(
    action: Action, image: Visibility | None, namespace: NamespaceFacts
) -> None:
    allowed = decide(action, facts_for(ANONYMOUS, namespace, image)).allowed
    assert not allowed or action is Action.PULL


@given(ACTIONS, PRINCIPALS, NAMESPACES)
def test_a_missing_image_looks_like_a_private_one(
    action: Action, principal: Principal, namespace: NamespaceFacts
) -> None:
    missing = decide(action, facts_for(principal, namespace, None))
    private = decide(action, facts_for(principal, namespace, Visibility.PRIVATE))
    assert missing == private


@given(ACTIONS, PRINCIPALS, VISIBILITIES)
def test_a_missing_namespace_allows_nothing_but_pulls_of_a_public_image(
    action: Action, principal: Principal, image: Visibility | None
) -> None:
    decision = decide(action, facts_for(principal, None, image))
    assert not decision.allowed or (action is Action.PULL and image is Visibility.PUBLIC)
