"""The cache evicts least recently used entries and never exceeds its capacity, with any number of threads."""

import threading

from registry_control.common.lru_cache import LruCache


def test_the_least_recently_used_entry_is_evicted() -> None:
    cache = LruCache[str, bytes](2500, len)
    for name in ("a", "b", "c"):
        cache.put(name, name.encode() * 1000)
        cache.get("a")
    assert [name for name in ("a", "b", "c") if cache.get(name)] == ["a", "c"]


def test_the_size_of_entries_is_counted_by_the_given_function() -> None:
    cache = LruCache[str, bytes](100_000, lambda content: len(content) + 400)
    for number in range(10_000):
        cache.put(str(number), b"x")
    assert sum(cache.get(str(number)) is not None for number in range(10_000)) == 100_000 // 401


def test_a_value_larger_than_the_cache_is_not_stored_and_evicts_nothing() -> None:
    cache = LruCache[str, bytes](10, len)
    cache.put("small", b"x")
    cache.put("large", b"x" * 11)
    assert cache.get("large") is None
    assert cache.get("small") == b"x"


def test_a_popped_value_is_returned_once() -> None:
    cache = LruCache[str, int](1)
    cache.put("a", 1)
    assert cache.pop("a") == 1
    assert cache.pop("a") is None
    cache.put("a", 2)
    cache.put("b", 3)
    assert cache.get("a") is None


def test_the_cache_is_thread_safe() -> None:
    cache = LruCache[int, int](50)
    errors = list[BaseException]()

    def use() -> None:
        try:
            for number in range(5000):
                cache.put(number % 100, number)
                cache.get(number % 70)
                cache.pop(number % 30)
        except BaseException as error:  # noqa: BLE001 - reported by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sum(cache.get(number) is not None for number in range(100)) <= 50
