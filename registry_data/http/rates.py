"""Rate limits of requests (OCI 16)."""

import math

from registry_data.http.app_context import AppContext
from registry_data.http.authentication import credentials
from registry_data.http.messages import Request
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.rates import anonymous_caller
from registry_data.registry.authorization import Credentials
from registry_data.registry.service import name_of_caller
from registry_data.scoped_cache import Dependencies


async def check_rate(plane: AppContext, request: Request) -> None:
    """Count a request.

    Raises:
        ProtocolError: 429 with Retry-After, the caller is over its limit.
    """
    if plane.rates is None:
        return
    principal = await _principal(plane, request)
    if seconds := count_request(plane, request, principal):
        limit = _limit(plane, principal)
        raise ProtocolError(
            ErrorCode.TOOMANYREQUESTS,
            f"more than {limit} requests a minute: try again in {math.ceil(seconds)} s",
            headers={"Retry-After": str(math.ceil(seconds))},
        )


def count_request(plane: AppContext, request: Request, principal: str) -> float:
    """Count a request, also one that is answered from the cache. Returns the seconds to wait instead, or 0.

    A request without a principal counts for the address that it comes from: otherwise each wrong key would
    start with an unused limit.
    """
    limit = _limit(plane, principal)
    if plane.rates is None or not limit:
        return 0.0
    return plane.rates.take((principal or anonymous_caller(request.client_address)).encode(), limit)


def _limit(plane: AppContext, principal: str) -> int:
    return plane.config.rate_limit if principal else plane.config.rate_limit_anonymous


async def _principal(plane: AppContext, request: Request) -> str:
    who = credentials(request)
    if who == Credentials():
        return ""
    # What the rate depends on is not what the response depends on.
    dependencies = Dependencies(request.dependencies.version)
    return await plane.bridge.read(dependencies, name_of_caller, who)
