"""Access log lines of the data plane, one for each response, cached ones included."""

from typing import Protocol

from registry_data.http.app_context import Exchange, ResponseHook
from registry_data.http.messages import client_address


class AccessLog(Protocol):
    """Where lines go (`registry_control.common.access_log`)."""

    def record(
        self,
        *,
        at: float,
        client: str,
        method: str,
        path: str,
        status: int,
        sent: int,
        seconds: float,
        request_id: str,
        principal: str,
        user_agent: str,
        cache: str,
    ) -> None:
        """Write a line."""
        ...


def access_log_hook(log: AccessLog) -> ResponseHook:
    """The hook that writes a line for each response."""

    def write(exchange: Exchange) -> None:
        scope, context = exchange.scope, exchange.context
        method = scope["method"]
        is_read = method in ("GET", "HEAD")
        log.record(
            at=exchange.ended_at,
            client=client_address(scope),
            method=method,
            path=scope["path"],
            status=exchange.status,
            sent=exchange.sent,
            seconds=exchange.seconds,
            request_id=context.request_id,
            principal=context.principal,
            user_agent=exchange.headers.get(b"user-agent", b"").decode("latin-1"),
            cache=("hit" if exchange.from_cache else "miss") if is_read else "",
        )

    return write
