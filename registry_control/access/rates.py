"""The rate limit of requests without valid credentials, which both planes share."""

import math
from functools import cache

from django.conf import settings
from django.http import HttpRequest
from rest_framework.exceptions import Throttled
from rest_framework.request import Request

from registry_data.rates import Rates, anonymous_caller


def count_anonymous(request: Request | HttpRequest) -> None:
    """Count a request without valid credentials against the limit of its client address.

    Raises:
        Throttled: the address has exceeded the limit, on both planes together.
    """
    limit = settings.RATE_LIMIT_ANONYMOUS
    if not limit:
        return
    seconds = _rates().take(anonymous_caller(request.META.get("REMOTE_ADDR", "")).encode(), limit)
    if seconds:
        wait = math.ceil(seconds)
        raise Throttled(wait, f"more than {limit} requests a minute without valid credentials.")


@cache
def _rates() -> Rates:
    return Rates(settings.STATE_DIR / "rates")
