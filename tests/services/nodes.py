"""Several nodes of one installation."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Final

from tests.services.stack import Credentials, Stack

NO_CREDENTIALS: Final = (
    "this database already has its first credentials: this node did not write credentials.json"
)


@contextmanager
def started_together(nodes: Sequence[Stack]) -> Iterator[None]:
    """Start all nodes in the same moment; every one of them must become ready."""
    # A program ends with the thread that started it, so the threads stay until the end.
    with ThreadPoolExecutor(len(nodes)) as pool, ExitStack() as cleanup:
        for node in nodes:
            cleanup.callback(_stop, node)
        for start in [pool.submit(node.start) for node in nodes]:
            start.result()
        yield


def _stop(node: Stack) -> None:
    if node.is_running:
        node.stop()


def credentials_of(nodes: Sequence[Stack]) -> Credentials:
    """Those of the one node that has created them; every other node has logged that it did not."""
    (winner,) = [node for node in nodes if (node.state_dir / "credentials.json").exists()]
    assert NO_CREDENTIALS not in winner.log
    for node in nodes:
        assert node is winner or NO_CREDENTIALS in node.log
        assert "Traceback" not in node.log
    return winner.credentials
