"""Records pulls of the tags of a registry until SIGTERM: the process that `bench.pulls` runs beside pushes.

Every pull is written, because those of each batch happened an hour after those of the batch before, long ago.
The argument is the number of pulls a second.
"""

import json
import os
import signal
import sys
import threading
import time
import timeit
from collections.abc import Mapping
from functools import partial
from itertools import cycle
from statistics import quantiles
from typing import Final
from uuid import uuid4

import django

_HOUR: Final = 3600.0  # seconds
_TICK: Final = 0.05  # seconds between some pulls


def main() -> None:
    """Record, then print how many pulls were written in a second, and how long things took."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_control.settings")
    django.setup()
    from registry_control.catalog.models import Tag
    from registry_control.catalog.services.pulls import Pull, Recorded, record
    from registry_data.registry.pulls import PullRecorder

    rate = int(sys.argv[1])
    age, written, skipped, durations = 100_000 * _HOUR, 0, 0, list[float]()

    def record_hours_later(ages: Mapping[Pull, float]) -> Recorded:
        nonlocal age, written, skipped
        age -= _HOUR
        began = time.monotonic()
        recorded = record(dict.fromkeys(ages, age))
        durations.append(time.monotonic() - began)
        written, skipped = written + len(recorded.fresh_for), skipped + len(recorded.locked)
        return recorded

    pulls = [Pull(*row) for row in Tag.objects.values_list("image_id", "manifest_id", "pk")]
    waiting, recorder = cycle(pulls), PullRecorder(record_hours_later)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    print("recording", flush=True)
    began = time.monotonic()
    while not stopped.wait(_TICK):
        for _ in range(round(rate * _TICK)):
            recorder.note(next(waiting))
    recorder.close()
    seconds = time.monotonic() - began
    parts = quantiles(durations, n=100)
    figures = {
        "rate": written / seconds,
        "skipped": skipped / seconds,
        "p50": parts[49],
        "p99": parts[98],
        "note": _seconds_of_note(),
    }
    print(json.dumps(figures))


def _seconds_of_note() -> float:
    """The duration of the response hook that notes a pull."""
    from registry_control.catalog.services.pulls import Pull, Recorded
    from registry_control.common.request_context import start
    from registry_data.http.app_context import Exchange
    from registry_data.http.pulls import pulls_hook
    from registry_data.registry.pulls import PullRecorder

    scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/", "headers": []}
    exchange = Exchange(scope, {}, start(None), pull=Pull(uuid4(), 1, uuid4()))
    recorder = PullRecorder(lambda ages: Recorded(dict.fromkeys(ages, _HOUR), ()))
    hook, number = pulls_hook(recorder), 100_000
    best = min(timeit.repeat(partial(hook, exchange), number=number, repeat=9)) / number
    recorder.close()
    return best


if __name__ == "__main__":
    main()
