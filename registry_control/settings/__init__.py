"""The Django settings, derived from `environment` only."""

import os
import sys
from datetime import timedelta
from typing import Any

import dj_database_url

from registry_control.common.version import version
from registry_control.settings.environment import ConfigurationError, Environment, host_without_port

try:
    ENVIRONMENT = Environment.load(os.environ)
except ConfigurationError as error:
    sys.exit(f"stowage: {error}")

STATE_DIR = ENVIRONMENT.state_dir
CONTROL_ADDR = ENVIRONMENT.control_addr
DATA_ADDR = ENVIRONMENT.data_addr
PUBLIC_HOST = ENVIRONMENT.public_host
PUBLIC_SCHEME = ENVIRONMENT.public_scheme
PUBLIC_ORIGIN = ENVIRONMENT.public_origin
REGION = ENVIRONMENT.region
STORAGE_URL = ENVIRONMENT.storage_url
REDIS_URL = ENVIRONMENT.redis_url
DATA_WORKERS = ENVIRONMENT.data_workers
WORKER_FAST = ENVIRONMENT.worker_fast
WORKER_BULK = ENVIRONMENT.worker_bulk
READ_ONLY = ENVIRONMENT.read_only
CHALLENGE = ENVIRONMENT.challenge
ACCESS_LOG = ENVIRONMENT.access_log
DISK_RESERVE = None if ENVIRONMENT.disk_reserve is None else ENVIRONMENT.disk_reserve * 1024 * 1024  # bytes
MAX_UPLOADS = ENVIRONMENT.max_uploads
IDLE_TIMEOUT = ENVIRONMENT.idle_timeout
RATE_LIMIT = ENVIRONMENT.rate_limit
RATE_LIMIT_ANONYMOUS = ENVIRONMENT.rate_limit_anonymous
TRUSTED_PROXIES = ENVIRONMENT.trusted_proxies
EGRESS = ENVIRONMENT.egress
CONNECTIONS_PER_ADDRESS = ENVIRONMENT.connections_per_address
KEEPALIVE = ENVIRONMENT.keepalive
CONTROL_THREADS = ENVIRONMENT.control_threads
DATABASE_THREADS = ENVIRONMENT.database_threads
STORAGE_THREADS = ENVIRONMENT.storage_threads
FIRST_ACCOUNTS = ENVIRONMENT.first_accounts

# How long a blob that a client was told exists is kept without a manifest that references it (invariant 2).
BLOB_LEASE = timedelta(seconds=ENVIRONMENT.lease)
# How long a blob without references is kept before garbage collection deletes it.
GC_GRACE = timedelta(seconds=ENVIRONMENT.gc_grace)
GC_BREAKER = ENVIRONMENT.gc_breaker
# How long what was deleted can be restored; the grace period of its blobs comes after that. 0: not at all.
RECYCLE_BIN = timedelta(seconds=ENVIRONMENT.recycle_bin)
# Zero: never.
SCRUB_PERIOD = timedelta(seconds=ENVIRONMENT.scrub_period)
RECONCILE_PERIOD = timedelta(seconds=ENVIRONMENT.reconcile_period)
# How long an upload may be idle before the worker deletes it (OCI 76).
UPLOAD_LIFE = timedelta(hours=48)
TOKEN_LIFE = timedelta(minutes=5)

SECRET_KEY = ENVIRONMENT.secret_key
DEBUG = False
ALLOWED_HOSTS = [
    "127.0.0.1",
    "localhost",
    "[::1]",
    CONTROL_ADDR.url_host,
    host_without_port(PUBLIC_HOST),
    *ENVIRONMENT.allowed_hosts,
]

INSTALLED_APPS = [
    "registry_control.standalone",
    "registry_control.serving",
    "registry_control.gc",
    "registry_control.integrity",
    "registry_control.replication",
    "registry_control.recycling",
    "registry_control.catalog",
    "registry_control.namespaces",
    "registry_control.access",
    "registry_control.identity",
    "registry_control.administration",
    "registry_control.audit",
    "registry_control.common",
    "registry_control.administration.apps.DjangoAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]
MIDDLEWARE = [
    "registry_control.rest.middleware.RequestId",
    "registry_control.serving.health.HealthCheck",
    "registry_control.rest.middleware.AllowedHost",
    "registry_control.rest.cookies.SecureCookies",
    "registry_control.rest.content_security.ContentSecurityPolicy",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "registry_control.rest.middleware.DatabaseUnavailable",
]
ROOT_URLCONF = "registry_control.urls"
WSGI_APPLICATION = "registry_control.wsgi.application"
APPEND_SLASH = False  # A redirect would turn a POST, PATCH or DELETE into a GET.
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def _database(url: str) -> dict[str, Any]:
    """SQLite with the durability that PostgreSQL has by default; PostgreSQL with persistent connections."""
    config: dict[str, Any] = dict(dj_database_url.parse(url))
    if config["ENGINE"].endswith("sqlite3"):
        config["ENGINE"] = "registry_control.db.sqlite"
        config["CONN_MAX_AGE"] = None
        config["OPTIONS"] = {
            "timeout": 20,
            # BEGIN IMMEDIATE waits for the write lock; acquiring it later in a transaction can fail with
            # "locked".
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
        }
    else:
        config["ENGINE"] = "registry_control.db.postgresql"
        config["CONN_MAX_AGE"] = 600
        config["CONN_HEALTH_CHECKS"] = True
        config["OPTIONS"] = {
            "connect_timeout": 10,
            # A connection to a host that has disappeared fails after 25 seconds, idle or not. The timeouts
            # for a server that is reachable are in db/postgresql/timeouts.py.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 25_000,
            # Django's default, None, disables prepared statements of psycopg. With a threshold, the
            # statements of db/sql.py, which request it, are prepared at once, and Django's own queries still
            # are not.
            "prepare_threshold": 5,
            **config.get("OPTIONS", {}),
        }
    return config


DATABASES = {"default": _database(ENVIRONMENT.database_url)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "identity.User"
PASSWORD_HASHERS = [
    "registry_control.identity.hashers.Argon2",
    # For passwords set in earlier releases; the next sign-in replaces the hash.
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]

USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False

STATIC_URL = "/static/"
# Static files are served from the installed packages, so `collectstatic` is not needed.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"  # also after a sign-in whose `next` is missing or names another host
SESSION_COOKIE_HTTPONLY = True
# rest/cookies.py sets Secure if the browser uses https, so that http works as well.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = False
# A form's Origin must be the scheme and host of its request. Behind a proxy that terminates TLS and does not
# forward them, it may also be one of these; a leading dot stands for all subdomains, as in ALLOWED_HOSTS.
CSRF_TRUSTED_ORIGINS = [
    f"https://{'*' if host.startswith('.') else ''}{host}"
    for host in (PUBLIC_HOST, *ENVIRONMENT.allowed_hosts)
    if PUBLIC_SCHEME == "https" and host != "*"
]
# Browsers share cookies between ports: two registries on one host need different names.
SESSION_COOKIE_NAME = f"stowage_session_{CONTROL_ADDR.port}"
CSRF_COOKIE_NAME = f"stowage_csrf_{CONTROL_ADDR.port}"
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["registry_control.access.authentication.SecretKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["registry_control.access.authentication.IsPrincipal"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["registry_control.rest.parsers.PlainJsonParser"],
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "registry_control.rest.errors.handle",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Stowage registry API",
    "DESCRIPTION": "Namespaces, images, tags and their privacy policies; garbage collection; replication.",
    "VERSION": version(),
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "COMPONENT_SPLIT_PATCH": False,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    # Names of choices that several serializers have under one field name.
    "ENUM_NAME_OVERRIDES": {
        "StatusEnum": "registry_control.common.models.SHOWN_STATUSES",
        "ExecutionStatusEnum": "registry_control.replication.models.ExecutionStatus",
        "KindEnum": "registry_control.gc.models.GcRun.Kind",
        "RecycledKindEnum": "registry_control.namespaces.models.RecycleBinEntry.Kind",
        "GarbageRunStatusEnum": "registry_control.gc.models.GcRun.Status",
    },
}

CELERY_BROKER_URL = REDIS_URL or "filesystem://localhost"
CELERY_BROKER_TRANSPORT = None if REDIS_URL else "registry_control.serving.broker:Transport"
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = (
    {
        # Without these timeouts, an unresponsive Redis blocks the worker and the publisher thread forever.
        "socket_timeout": 5,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "max_retries": 1,
        "interval_start": 0,
        # Seconds until Redis redelivers the message of a killed worker; longer than any task takes.
        "visibility_timeout": 3600,
    }
    if REDIS_URL
    else {"folder": str(STATE_DIR / "broker"), "polling_interval": 0.5}
)
CELERY_TASK_DEFAULT_QUEUE = "fast"
CELERY_TASK_IGNORE_RESULT = True
# A message is acknowledged when its task has ended, so the messages of a killed worker are redelivered. A
# worker prefetches one message per thread, so that other workers receive the rest.
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # retry forever
CELERY_BROKER_CHANNEL_ERROR_RETRY = True  # Redis may be full or a read-only replica temporarily
# The publisher thread retries (`common/publisher.py`).
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TIMEZONE = "UTC"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s [%(request_id)s]: %(message)s"}},
    "filters": {"request_id": {"()": "registry_control.common.request_context.RequestIdFilter"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["request_id"]}
    },
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {"django": {"handlers": ["stderr"], "level": "INFO", "propagate": False}},
}
