"""The current request in log records, in threads and outside of requests."""

import logging
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from registry_control.common import request_context


def record() -> logging.LogRecord:
    made = logging.LogRecord("name", logging.INFO, "path", 1, "message", (), None)
    assert request_context.RequestIdFilter().filter(made)
    return made


def in_new_context(incoming: str | None) -> request_context.RequestContext:
    return copy_context().run(request_context.start, incoming)


@pytest.mark.parametrize("incoming", ["a", "A.b_c-9", "x" * 128])
def test_a_valid_request_id_is_accepted(incoming: str) -> None:
    assert in_new_context(incoming).request_id == incoming


@pytest.mark.parametrize("incoming", [None, "", "a b", "a\n", "\n", "x" * 129, "ä", "a,b", "a/b", "a\x00"])
def test_any_other_request_id_is_replaced_by_a_unique_one(incoming: str | None) -> None:
    made = {in_new_context(incoming).request_id for _ in range(10)}
    assert len(made) == 10
    assert incoming not in made


def test_log_records_have_the_request_id_also_in_threads_of_the_request() -> None:
    def scenario() -> tuple[str, str, str]:
        request_context.start("r1")
        with ThreadPoolExecutor(1) as pool:
            in_thread = pool.submit(copy_context().run, record).result()
            pool.submit(copy_context().run, request_context.identified, "user:1").result()
        context = request_context.current()
        assert context is not None
        return vars(record())["request_id"], vars(in_thread)["request_id"], context.principal

    assert copy_context().run(scenario) == ("r1", "r1", "user:1")


def test_outside_of_requests_there_is_no_request_id_and_no_principal() -> None:
    def scenario() -> tuple[str, str | None]:
        request_context.end()
        request_context.identified("user:1")
        return vars(record())["request_id"], request_context.request_id()

    assert copy_context().run(scenario) == ("-", None)
