"""The bytes that the collector marked as deleting in the last 24 hours."""

from datetime import timedelta
from typing import Final

from django.db.models import Sum

from registry_control.common.clock import database_now
from registry_control.gc.models import MarkedBytes

DAY: Final = timedelta(hours=24)


def of_a_day() -> int:
    """The sum of the hours that began in the last 24 hours."""
    moment = database_now()
    hours = MarkedBytes.objects.filter(hour__gt=moment - DAY, hour__lte=moment)
    found = hours.aggregate(sum=Sum("bytes"))
    return found["sum"] or 0
