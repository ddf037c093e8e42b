"""Notes each response that counts as a pull, cached ones included."""

from registry_data.http.app_context import Exchange, ResponseHook
from registry_data.registry.pulls import PullRecorder


def pulls_hook(recorder: PullRecorder) -> ResponseHook:
    """The hook that notes the pulls of this process."""

    def note(exchange: Exchange) -> None:
        if exchange.pull is not None:
            recorder.note(exchange.pull)

    return note
