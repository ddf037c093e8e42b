"""A clock of this node that is wrong, while that of the database is right."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from django.apps import apps
from django.db.models import DateTimeField, Max, Min
from django.utils import timezone

from registry_control.common import clock
from registry_control.common.clock import database_now

YEARS: Final = timedelta(days=3650)
_TOLERANCE: Final = timedelta(hours=1)  # some rows have the beginning of their hour
_LATEST: Final = timedelta(days=8)  # what expires after the period of the recycle bin


@contextmanager
def wrong_clock_of_the_node(error: timedelta) -> Iterator[None]:
    """Let the time of this process be wrong; SQLite's functions have the time of the database."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "datetime", Wrong)
        patch.setattr(timezone, "datetime", Wrong)
        assert abs(clock.now() - datetime.now(UTC)) > abs(error) / 2
        assert abs(database_now() - datetime.now(UTC)) < _TOLERANCE
        yield


def check_times(*labels: str, only_shown: Collection[str]) -> None:
    """Check that all times in the tables of these apps are those of the database, except for some columns."""
    moment = database_now()
    for model in (model for label in labels for model in apps.get_app_config(label).get_models()):
        for field in model._meta.get_fields():
            name = f"{model._meta.model_name}.{field.name}"
            if not isinstance(field, DateTimeField) or name in only_shown:
                continue
            found = model._default_manager.aggregate(low=Min(field.name), high=Max(field.name))
            for value in found.values():
                assert value is None or moment - _TOLERANCE <= value <= moment + _LATEST, (name, value)
