"""The memory budget for bodies in transfer."""

from contextlib import ExitStack

from registry_data.http.memory_budget import MemoryBudget


def test_few_leases_get_the_maximum_and_many_share_the_budget() -> None:
    budget = MemoryBudget(10_000_000, most=1_000_000)
    with ExitStack() as users:
        sizes = [users.enter_context(budget.lease()) for _ in range(10)]
        assert {size() for size in sizes} == {1_000_000}
        sizes += [users.enter_context(budget.lease()) for _ in range(90)]
        assert {size() for size in sizes} == {100_000}
    with budget.lease() as size:
        assert size() == 1_000_000
