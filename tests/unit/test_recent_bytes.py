"""Contents that are kept."""

from registry_data.registry.memory import RecentBytes


def test_those_that_were_used_longest_ago_make_room() -> None:
    recent = RecentBytes(2500)
    for name in ("a", "b", "c"):
        recent.put(name, name.encode() * 700)
        recent.get("a")
    assert [name for name in ("a", "b", "c") if recent.get(name)] == ["a", "c"]


def test_what_a_small_one_takes_besides_its_content_counts() -> None:
    recent = RecentBytes(100_000)
    for number in range(10_000):
        recent.put(str(number), b"x")
    assert sum(recent.get(str(number)) is not None for number in range(10_000)) < 1000
