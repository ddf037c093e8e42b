"""The composition root of the data plane: the only module that imports every part."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import django

if TYPE_CHECKING:
    from registry_data.connections import Connections
    from registry_data.http.app import App
    from registry_data.http.app_context import AppContext
    from registry_data.http.read_executor import ReadExecutor
    from registry_data.scoped_cache import ChangeFeed, ChangeTracker


def build(connections: "Connections | None" = None) -> "App":
    """Create the ASGI application; the server calls this once per process."""
    context = build_context()
    from registry_data.http.app import App

    return App(context, connections)


def build_context() -> "AppContext":
    """Create the application context from the Django settings."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_control.settings")
    django.setup()

    # Imported here: models can only be imported after django.setup().
    from django.conf import settings
    from django.db import connection

    from registry_control.access.tokens import SERVICE
    from registry_control.common import request_context
    from registry_control.common.access_log import open_access_log
    from registry_control.common.store import blob_store
    from registry_control.common.version import version
    from registry_data.config import Config
    from registry_data.http.access_log import access_log_hook
    from registry_data.http.app_context import AppContext
    from registry_data.http.bridge import Bridge
    from registry_data.http.loop_wait import LoopWait
    from registry_data.http.pulls import pulls_hook
    from registry_data.rates import Rates
    from registry_data.registry.pulls import PullRecorder
    from registry_data.scoped_cache import ChangeTracker

    config = Config(
        public_host=settings.PUBLIC_HOST,
        public_origin=settings.PUBLIC_ORIGIN,
        service=SERVICE,
        version=version(),
        blob_lease=settings.BLOB_LEASE,
        read_only=settings.READ_ONLY,
        challenges_with_basic=settings.CHALLENGE == "basic",
        idle_time=settings.IDLE_TIMEOUT,
        rate_limit=settings.RATE_LIMIT,
        rate_limit_anonymous=settings.RATE_LIMIT_ANONYMOUS,
        trusted_proxies=settings.TRUSTED_PROXIES,
        database_threads=settings.DATABASE_THREADS,
        storage_threads=settings.STORAGE_THREADS,
    )
    tracker = ChangeTracker()
    feed, reads = _on_sqlite(tracker) if connection.vendor == "sqlite" else _on_postgresql(tracker)
    bridge = Bridge(
        database_threads=config.database_threads,
        storage_threads=config.storage_threads,
        reads=reads,
        wait=LoopWait() if connection.vendor == "sqlite" else None,
    )
    access_log, pulls = open_access_log(settings.ACCESS_LOG), PullRecorder()
    return AppContext(
        config,
        bridge,
        blob_store(),
        feed,
        tracker,
        new_request=request_context.new,
        use_request=request_context.use,
        rates=Rates(settings.STATE_DIR / "rates") if config.limits_rates else None,
        on_response=(pulls_hook(pulls), *([access_log_hook(access_log)] if access_log else ())),
        on_shutdown=(pulls.close, *([access_log.close] if access_log else ())),
    )


def _on_sqlite(tracker: "ChangeTracker") -> "tuple[ChangeFeed, ReadExecutor]":
    from django.db import connection

    from registry_control.common.change_feed import SqliteChangeFeed
    from registry_control.db.sql import query_on_connection, use_query_executor
    from registry_data.http.read_executor import InlineReads

    # Django rejects queries in the thread of an event loop. Reads of a local file run there on purpose: they
    # wait for no server and no writer, and switching to a thread would cost several times the query.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    feed = SqliteChangeFeed(Path(connection.settings_dict["NAME"]), tracker.apply)
    return feed, InlineReads(use_query_executor, query_on_connection, tracker)


def _on_postgresql(tracker: "ChangeTracker") -> "tuple[ChangeFeed, ReadExecutor]":
    from django.db import connection

    from registry_control.common.change_feed import PostgresChangeFeed
    from registry_control.db.postgresql import timeouts
    from registry_control.db.postgresql.pipeline import Pipeline
    from registry_control.db.sql import use_query_executor
    from registry_data.http.read_executor import GreenletReads

    parameters = connection.get_connection_params()
    pipeline = Pipeline(lambda: timeouts.connect(parameters))
    return PostgresChangeFeed(pipeline, tracker.apply), GreenletReads(use_query_executor, pipeline, tracker)
