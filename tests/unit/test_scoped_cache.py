"""A cache whose entries are evicted by changes of their scopes: never stale, for any order of events."""

from hypothesis import given
from hypothesis import strategies as st

from registry_data import scoped_cache
from registry_data.scoped_cache import ChangeTracker, Dependencies, ScopedCache

CAPACITY = 1000


def put(cache: ScopedCache[str, int], key: str, value: int, *scopes: str, since: int, size: int = 1) -> None:
    cache.put(key, value, since=since, scopes=scopes, size=size)


def test_a_change_of_one_scope_does_not_evict_entries_of_others() -> None:
    tracker = ChangeTracker()
    cache: ScopedCache[str, int] = ScopedCache(tracker, CAPACITY)
    put(cache, "a", 1, "image:a", "namespace:n", since=tracker.version)
    put(cache, "b", 2, "image:b", "namespace:n", since=tracker.version)
    tracker.apply({"image:a"})
    assert (cache.get("a"), cache.get("b")) == (None, 2)
    tracker.apply({"namespace:n"})
    assert cache.get("b") is None


def test_a_change_of_everything_evicts_all_entries_and_those_still_being_read() -> None:
    tracker = ChangeTracker()
    cache: ScopedCache[str, int] = ScopedCache(tracker, CAPACITY)
    since = tracker.version
    put(cache, "a", 1, "image:a", since=since)
    tracker.apply(None)
    put(cache, "b", 2, "image:b", since=since)
    assert (cache.get("a"), cache.get("b")) == (None, None)


def test_a_value_read_before_a_change_is_not_returned_after_it() -> None:
    tracker = ChangeTracker()
    cache: ScopedCache[str, int] = ScopedCache(tracker, CAPACITY)
    since = tracker.version  # a request reads
    tracker.apply({"image:a"})  # another request applies a change
    put(cache, "a", 1, "image:a", since=since)
    put(cache, "b", 2, "image:b", since=since)
    assert (cache.get("a"), cache.get("b")) == (None, 2)


def test_an_entry_in_use_survives_more_changes_than_the_tracker_stores() -> None:
    tracker = ChangeTracker()
    cache: ScopedCache[str, int] = ScopedCache(tracker, CAPACITY)
    put(cache, "used", 1, "image:used", since=tracker.version)
    put(cache, "idle", 2, "image:idle", since=tracker.version)
    for number in range(scoped_cache.REMEMBERED + 1):
        tracker.apply({f"image:{number}"})
        if number % 1000 == 0:
            assert cache.get("used") == 1
    # then entries last validated before the oldest stored change are evicted
    assert (cache.get("used"), cache.get("idle")) == (1, None)


def test_memory_is_limited_and_least_recently_used_entries_are_evicted() -> None:
    tracker = ChangeTracker()
    cache: ScopedCache[str, int] = ScopedCache(tracker, CAPACITY)
    put(cache, "too large", 0, "s", since=0, size=CAPACITY + 1)
    for number in range(30):
        put(cache, str(number), number, "s", since=0, size=100)
        assert number == 0 or cache.get("0") == 0
    assert cache.get("too large") is None
    assert [number for number in range(30) if cache.get(str(number)) is not None] == [0, *range(21, 30)]


SCOPES = st.sets(st.sampled_from("abc"), min_size=1)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.one_of(st.none(), SCOPES)),
        st.tuples(st.just("begin"), SCOPES),
        st.tuples(st.just("end"), st.integers(0, 5)),
        st.tuples(st.just("get"), SCOPES),
    )
)


@given(events=EVENTS)
def test_a_cached_value_is_never_older_than_the_last_applied_change(
    events: list[tuple[str, set[str] | int | None]],
) -> None:
    """A value is the state of its scopes when it was read; `get` returns None or the present state."""
    tracker = ChangeTracker()
    cache: ScopedCache[frozenset[str], tuple[int, ...]] = ScopedCache(tracker, CAPACITY)
    state = dict.fromkeys("abc", 0)
    reading: list[tuple[frozenset[str], tuple[int, ...], int]] = []

    def value(scopes: frozenset[str]) -> tuple[int, ...]:
        return tuple(state[scope] for scope in sorted(scopes))

    for kind, argument in events:
        if kind == "change":
            assert not isinstance(argument, int)
            for scope in argument or set(state):
                state[scope] += 1
            tracker.apply(argument)
        elif kind == "end":
            assert isinstance(argument, int)
            if reading:
                key, read, since = reading.pop(argument % len(reading))
                cache.put(key, read, since=since, scopes=key, size=1)
        else:
            assert isinstance(argument, set)
            key = frozenset(argument)
            if kind == "begin":
                reading.append((key, value(key), tracker.version))
            else:
                assert cache.get(key) in (None, value(key))


def test_dependencies_are_a_union_and_an_unknown_one_makes_it_uncacheable() -> None:
    dependencies = Dependencies(7)
    dependencies.add({"a"})
    dependencies.add(["b"])
    dependencies.add(())
    assert (dependencies.is_cacheable, dependencies.scopes) == (True, {"a", "b"})
    dependencies.add(None)
    assert (dependencies.is_cacheable, Dependencies(None).is_cacheable) == (False, False)
