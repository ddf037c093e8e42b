"""Pure rules of replication: templates, the order of a copy, back-off, lists of errors."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_control.common.errors import InvalidArgument
from registry_control.common.globs import is_glob
from registry_control.replication.policy import (
    MAX_ERRORS,
    Node,
    check_cron,
    check_destination,
    check_repositories,
    check_url,
    copy_order,
    render,
    retry_delay,
    with_error,
)
from registry_data.oci.errors import ProtocolError
from registry_data.oci.reference import check_name

TEXTS = st.text(alphabet="ab/.", max_size=12)
DIGESTS = st.sampled_from([f"sha256:{number}" for number in range(8)])


@given(
    st.sampled_from(["{namespace}/{image}", "{image}", "mirror/{image}", "a-{namespace}/{image}/x"]), TEXTS
)
def test_what_a_template_makes_is_a_valid_name_or_nothing(template: str, source: str) -> None:
    name = render(template, source)
    if name is not None:
        check_name(name)


@given(st.from_regex(r"[a-z0-9]{1,5}(/[a-z0-9]{1,5}){1,3}", fullmatch=True))
def test_the_usual_templates(source: str) -> None:
    namespace, _, image = source.partition("/")
    assert render("{namespace}/{image}", source) == source
    assert render("{image}", source) == image
    assert render("x/{namespace}-{image}", source) == f"x/{namespace}-{image}"
    assert render("{namespace}/{image}", image.replace("/", "")) == image.replace("/", "")


@given(st.text(alphabet="ab{}/ namespaceimage", max_size=30))
def test_a_template_that_is_accepted_makes_a_name(template: str) -> None:
    try:
        check_destination(template)
    except InvalidArgument:
        return
    name = render(template, "namespace/image")
    assert name is not None
    check_name(name)


@given(st.lists(st.text(max_size=20), max_size=4))
def test_accepted_repositories_are_names_or_globs(names: list[str]) -> None:
    try:
        check_repositories(names)
    except InvalidArgument:
        return
    for name in names:
        if not is_glob(name):
            check_name(name)


@given(st.dictionaries(DIGESTS, st.tuples(st.lists(DIGESTS, max_size=4), st.one_of(st.just(""), DIGESTS))))
def test_children_and_subjects_come_first(graph: dict[str, tuple[list[str], str]]) -> None:
    """In graphs with cycles, too, every manifest occurs once."""
    nodes = {digest: Node(digest, tuple(children), subject) for digest, (children, subject) in graph.items()}
    order = copy_order(nodes)
    assert sorted(order) == sorted(nodes)
    place = {digest: position for position, digest in enumerate(order)}
    for node in nodes.values():
        for before in (*node.children, node.subject):
            if before in nodes and not _reaches(nodes, before, node.digest):
                assert place[before] < place[node.digest]


def _reaches(nodes: dict[str, Node], start: str, goal: str) -> bool:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        digest = waiting.pop()
        if digest == goal:
            return True
        if digest in seen or digest not in nodes:
            continue
        seen.add(digest)
        waiting += [*nodes[digest].children, nodes[digest].subject]
    return False


def test_a_long_chain_needs_no_recursion() -> None:
    names = [f"sha256:{number}" for number in range(20_000)]
    nodes = {name: Node(name, (after,)) for name, after in zip(names, [*names[1:], ""], strict=True)}
    assert copy_order(nodes) == names[::-1]


@given(st.integers(1, 10_000), st.one_of(st.none(), st.floats(0, 10_000)))
def test_a_delay_is_bounded_and_respects_the_target(failures: int, retry_after: float | None) -> None:
    seconds = retry_delay(failures, retry_after=retry_after).total_seconds()
    assert 0.5 <= seconds <= 3600
    assert seconds <= max(300, retry_after or 0) + 0.001
    assert seconds >= min(retry_after or 0, 3600) - 0.001


@given(st.lists(st.text(min_size=1, max_size=3), max_size=60))
def test_a_list_of_errors_is_bounded_and_has_each_once(sentences: list[str]) -> None:
    errors: list[str] = []
    for sentence in sentences:
        errors = with_error(errors, sentence)
    assert len(errors) <= MAX_ERRORS
    assert len(set(errors)) == len(errors)
    if len(set(sentences)) <= MAX_ERRORS:
        assert errors == list(dict.fromkeys(sentences))


@given(st.text(max_size=30))
def test_any_schedule_is_accepted_or_refused(expression: str) -> None:
    with suppress(InvalidArgument):
        check_cron(expression)
        assert len(expression.split()) == 5


@given(st.text(max_size=40))
def test_any_url_is_accepted_or_refused(url: str) -> None:
    with suppress(InvalidArgument):
        check_url(url)
        assert url.startswith(("http://", "https://"))


@pytest.mark.parametrize(
    "url", ["https://registry.example.com", "http://127.0.0.1:5000", "https://[::1]:5000", "http://a_b/"]
)
def test_these_urls_are_accepted(url: str) -> None:
    check_url(url)


def test_names_with_a_host_are_no_repositories() -> None:
    with pytest.raises(InvalidArgument):
        check_repositories(["registry.example.com:5000/app"])
    with pytest.raises(ProtocolError):
        check_name("registry.example.com:5000/app")
