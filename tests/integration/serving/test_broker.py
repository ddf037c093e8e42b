"""The message folder: every message is delivered once and complete, and its file is deleted."""

import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty

import pytest
from celery import Celery
from django.conf import LazySettings
from kombu import Connection
from kombu.simple import SimpleQueue

from registry_control.serving import broker
from tests.services.disks import small_disk

MESSAGES = 200


@pytest.fixture
def folder(settings: LazySettings, tmp_path: Path) -> Path:
    settings.REDIS_URL = None
    settings.CELERY_BROKER_TRANSPORT_OPTIONS = {"folder": str(tmp_path / "broker")}
    broker.make_folder()
    return tmp_path / "broker"


@pytest.fixture
def connection(folder: Path) -> Iterator[Connection]:
    with connect() as connected:
        yield connected


def connect() -> Connection:
    return Connection("filesystem://localhost", transport="registry_control.serving.broker:Transport")


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def received(queue: SimpleQueue) -> object:
    message = queue.get(timeout=5)
    message.ack()
    return message.payload


def test_messages_arrive_in_order_and_leave_no_file(connection: Connection, folder: Path) -> None:
    with connection.SimpleQueue("work") as queue:
        for number in range(5):
            queue.put({"number": number})
        assert [received(queue) for _ in range(5)] == [{"number": number} for number in range(5)]
        with pytest.raises(Empty):
            queue.get(block=False)
    assert files(folder) == []


def test_a_reader_never_receives_a_partial_message(connection: Connection, folder: Path) -> None:
    # given a sender and a reader at full speed
    def send() -> None:
        with connect() as own, own.SimpleQueue("work") as queue:
            for number in range(MESSAGES):
                queue.put({"number": number, "padding": "x" * 10_000})

    sender = threading.Thread(target=send)
    sender.start()

    # when all are received
    with connection.SimpleQueue("work") as queue:
        numbers = [received(queue)["number"] for _ in range(MESSAGES)]  # type: ignore[index]
    sender.join()

    # then each was delivered once
    assert numbers == list(range(MESSAGES))
    assert files(folder) == []


def test_an_unreadable_message_is_dropped(
    connection: Connection, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # given two files that are no messages of ours, and a message
    (folder / "work").mkdir()
    (folder / "work" / "00_a.msg").write_text("{", encoding="utf-8")
    (folder / "work" / "00_b.msg").write_bytes(b"\xff\xfe")
    with connection.SimpleQueue("work") as queue:
        queue.put("good")

        # when the queue is read, then only the message is delivered
        assert received(queue) == "good"
    assert files(folder) == []
    assert caplog.text.count("dropped a message that cannot be parsed") == 2


def test_messages_of_an_earlier_run_are_deleted(connection: Connection, folder: Path) -> None:
    with connection.SimpleQueue("work") as queue:
        queue.put("old")
        assert queue.qsize() == 1
        broker.empty_folder()
        assert queue.qsize() == 0


def test_one_message_of_a_task_waits(connection: Connection, folder: Path) -> None:
    # given a worker's application whose messages go to the folder
    app = Celery(broker="filesystem://localhost")
    app.conf.broker_transport = "registry_control.serving.broker:Transport"

    def send(name: str, *arguments: int) -> None:
        with connection.Producer() as producer:
            app.send_task(name, arguments, queue="work", producer=producer, ignore_result=True)

    # when two tasks are sent many times, and one with arguments twice
    for _ in range(20):
        send("a.task")
        send("task")
    send("other", 1)
    send("other", 2)

    # then one message of each task waits, in the order of their first ones, and both with arguments
    with connection.SimpleQueue("work") as queue:
        assert queue.qsize() == 4
        names = []
        for _ in range(4):
            message = queue.get(timeout=5)
            message.ack()
            names.append(message.headers["task"])
        assert names == ["a.task", "task", "other", "other"]

        # and one that is sent after they were received waits again
        send("task")
        assert queue.qsize() == 1


@pytest.mark.parametrize("other", ["x.bulk", "bulk.x", "../bulk", "bulk/x", "*"])
def test_queues_with_similar_names_are_separate(connection: Connection, folder: Path, other: str) -> None:
    with connection.SimpleQueue("bulk") as queue, connection.SimpleQueue(other) as similar:
        similar.put("of the other")
        with pytest.raises(Empty):
            queue.get(block=False)
        assert received(similar) == "of the other"
    assert files(folder) == []


def test_a_full_disk_raises_in_the_sender_and_leaves_no_draft(settings: LazySettings, tmp_path: Path) -> None:
    # given a broker on a disk that is full
    with small_disk(tmp_path / "disk", mib=1) as disk:
        settings.REDIS_URL = None
        settings.CELERY_BROKER_TRANSPORT_OPTIONS = {"folder": str(disk / "broker")}
        broker.make_folder()
        with connect() as connection, connection.SimpleQueue("work") as queue:
            queue.put("before")
            (disk / "filler").write_bytes(b"x" * 900_000)

            # when a message does not fit, then the sender gets the error and no part of it remains
            with pytest.raises(OSError, match="No space left"):
                queue.put("x" * 200_000)
            assert len(files(disk / "broker")) == 1

            # and earlier messages are delivered
            assert received(queue) == "before"
