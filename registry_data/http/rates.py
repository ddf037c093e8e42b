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


async def check_rate(context: AppContext, request: Request) -> None:
    """Count a request against the rate limit of its caller.

    Raises:
        ProtocolError: 429 with Retry-After if the caller is over its limit.
    """
    if context.rates is None:
        return
    principal = await _principal(context, request)
    if seconds := count_request(context, request.client_address, principal):
        limit = _limit(context, principal)
        raise ProtocolError(
            ErrorCode.TOOMANYREQUESTS,
            f"more than {limit} requests a minute: try again in {math.ceil(seconds)} s",
            headers={"Retry-After": str(math.ceil(seconds))},
        )


def count_request(context: AppContext, address: str, principal: str) -> float:
    """Count a request, also if its response is cached. Returns the seconds to wait if over the limit, else 0.

    A request without a principal counts for the address that it comes from: otherwise each wrong key would
    start with an unused limit.
    """
    limit = _limit(context, principal)
    if context.rates is None or not limit:
        return 0.0
    return context.rates.take((principal or anonymous_caller(address)).encode(), limit)


def _limit(context: AppContext, principal: str) -> int:
    return context.config.rate_limit if principal else context.config.rate_limit_anonymous


async def _principal(context: AppContext, request: Request) -> str:
    caller = credentials(request)
    if caller == Credentials():
        return ""
    # Separate dependencies: the response does not depend on the name of the caller.
    dependencies = Dependencies(request.dependencies.version)
    return await context.bridge.read(dependencies, name_of_caller, caller)
