"""The change log: a change writes its row, and pruning writes its horizon, in the same transaction."""

from datetime import timedelta

import pytest
from django.db import connection, transaction

from registry_control.common.changes import (
    EVERYTHING,
    RETENTION,
    prune_changes,
    pruned_up_to,
    record_change,
)
from registry_control.common.clock import now
from registry_control.common.models import Change


def recorded() -> list[str]:
    return list(Change.objects.order_by("id").values_list("scope", flat=True))


@pytest.mark.django_db(transaction=True)
def test_a_change_and_its_log_row_are_committed_together_or_not_at_all() -> None:
    with pytest.raises(RuntimeError, match="needs the transaction"):
        record_change(EVERYTHING)
    with transaction.atomic():
        record_change("image:rolled-back")
        transaction.set_rollback(True)
    with transaction.atomic():
        record_change("image:a", "namespace:b")
    assert recorded() == ["image:a", "namespace:b"]


@pytest.mark.django_db(transaction=True)
def test_pruning_sets_a_horizon_that_is_not_below_any_deleted_row() -> None:
    # given more old rows than one batch, and a new row
    for number in range(3):
        with transaction.atomic():
            record_change(f"image:{number}")
    old = list(Change.objects.order_by("id"))
    Change.objects.update(created_at=now() - RETENTION - timedelta(seconds=1))
    with transaction.atomic():
        record_change("image:new")

    # when the worker prunes in batches
    assert prune_changes(limit=2) == 2
    assert prune_changes(limit=2) == 1
    assert prune_changes(limit=2) == 0

    # then the new row remains, and each batch has set a horizon
    on_sqlite = connection.vendor == "sqlite"
    horizons = [row.pk if on_sqlite else row.transaction_id for row in (old[1], old[2])]
    assert recorded()[0] == "image:new"
    assert [pruned_up_to(scope) for scope in recorded()] == [None, *horizons]
