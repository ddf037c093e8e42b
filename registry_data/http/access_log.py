"""Access log lines of the data plane, one for each response, cached ones included."""

from typing import Protocol

from registry_data.http.app_context import Exchange, ResponseHook


class AccessLog(Protocol):
    """Where lines go (`registry_control.common.access_log`)."""

    def record(
        self,
        *,
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
        request = exchange.request
        user_agent = request.raw_values(b"user-agent")
        is_read = request.method in ("GET", "HEAD")
        log.record(
            client=request.client_address,
            method=request.method,
            path=request.path,
            status=exchange.status,
            sent=exchange.sent,
            seconds=exchange.seconds,
            request_id=request.context.request_id,
            principal=request.context.principal,
            user_agent=user_agent[0].decode("latin-1") if user_agent else "",
            cache=("hit" if exchange.from_cache else "miss") if is_read else "",
        )

    return write
