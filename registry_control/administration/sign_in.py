"""Limits, audits and logs sign-ins with a password (ADR 49).

An attempt counts as failed from before the password is hashed until it succeeds, so that parallel attempts
cannot exceed the limit. Counters are database rows: all processes and nodes share them.
"""

import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.http import HttpRequest

from registry_control.administration.models import SignInCounter
from registry_control.audit.models import ActorKind
from registry_control.audit.services import Actor, Target, record
from registry_control.common.secrets import keyed_hash

logger = logging.getLogger(__name__)

LIMIT: Final = 10  # failed sign-ins
WINDOW: Final = 300  # seconds
HASHES_AT_ONCE: Final = 2
_WAITING_HASHES: Final = 2
_HASH_TIMEOUT: Final = 5  # seconds
_LIMITED: Final = "too many failures"
_PRUNED_AT_ONCE: Final = 100  # rows

# Every hash occupies a thread of the control plane, and every thread that waits for its turn another one.
_admitted: Final = threading.BoundedSemaphore(HASHES_AT_ONCE + _WAITING_HASHES)
_hashing: Final = threading.BoundedSemaphore(HASHES_AT_ONCE)


class SignInRefused(Exception):
    """The password was not checked; `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"try again in {retry_after} seconds")
        self.retry_after = retry_after


class TooManyFailures(SignInRefused):
    """The address, or the user from this network, reached the limit."""


class TooBusy(SignInRefused):
    """Too many other passwords are being checked at this moment."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sign-in that has begun."""

    address: str
    username: str
    at: float  # Unix time

    @property
    def keys(self) -> list[str]:
        """The primary keys of its two counters, in lock order."""
        # Not the name itself: some people type their password there.
        user = keyed_hash("sign-in user name", self.username)[:32]
        return sorted([f"address {_host(self.address)}", f"user {user} from {_network(self.address)}"])


def attempt_of(request: HttpRequest, username: str) -> Attempt:
    """The attempt that a request makes."""
    return Attempt(_address(request.META.get("REMOTE_ADDR", "")), username, time.time())


@contextmanager
def checking_password(attempt: Attempt) -> Iterator[None]:
    """Count the attempt, then wait for one of the few turns to hash a password.

    Raises:
        TooManyFailures: a limit is reached.
        TooBusy: other attempts take all turns; this one is not counted.
    """
    _count(attempt)
    with _turn(_admitted, attempt, timeout=0), _turn(_hashing, attempt, timeout=_HASH_TIMEOUT):
        yield


@contextmanager
def _turn(semaphore: threading.BoundedSemaphore, attempt: Attempt, *, timeout: int) -> Iterator[None]:
    """Acquire a semaphore, or stop counting the attempt.

    Raises:
        TooBusy: it was not released within `timeout` seconds.
    """
    if not semaphore.acquire(timeout=timeout):
        uncount(attempt)
        logger.warning("sign-in from %s refused: too many passwords are being checked", attempt.address)
        raise TooBusy(retry_after=1)
    try:
        yield
    finally:
        semaphore.release()


@transaction.atomic
def succeed(attempt: Attempt, user: AbstractBaseUser) -> None:
    """Audit and log a successful sign-in, which then no longer counts as failed."""
    uncount(attempt)
    actor = Actor(ActorKind.USER, str(user.pk), user.get_username())
    record(actor=actor, verb="sign_in.succeeded", target=_target(user), address=attempt.address)
    logger.info("sign-in of %s from %s succeeded", user.get_username(), attempt.address)


def refuse(attempt: Attempt, reason: str) -> None:
    """Audit and log a refused sign-in."""
    name = _record_refusal(attempt, reason)
    logger.warning("sign-in of %s from %s refused: %s", name, attempt.address, reason)


def _record_refusal(attempt: Attempt, reason: str) -> str:
    """Audit a refused sign-in; returns the user name, which is recorded only if a user has it."""
    user = get_user_model()._default_manager.filter(username=attempt.username).first()
    name = user.get_username() if user else "unknown user"
    actor = Actor(ActorKind.USER, str(user.pk) if user else "", name)
    target = _target(user) if user else Target("user", "", name, None)
    record(actor=actor, verb="sign_in.refused", target=target, address=attempt.address, reason=reason)
    return name


def _count(attempt: Attempt) -> None:
    """Add the attempt to its counters, unless one of them is full.

    Raises:
        TooManyFailures: one is full.
    """
    # Without a lock first: a flood of requests beyond the limit must cost no more than one query each.
    known = SignInCounter.objects.filter(key__in=attempt.keys, refused_at__gt=0)
    if retry_after := _retry_after(known, attempt) or _count_locked(attempt):
        logger.warning("sign-in from %s refused: %s", attempt.address, _LIMITED)
        raise TooManyFailures(retry_after)


@transaction.atomic
def _count_locked(attempt: Attempt) -> int:
    """Add the attempt with its counters locked; the seconds to wait if one of them is full."""
    SignInCounter.objects.bulk_create(
        [SignInCounter(key=key, updated_at=attempt.at) for key in attempt.keys],
        update_conflicts=True,
        unique_fields=["key"],
        update_fields=["updated_at"],
    )
    counters = _locked(attempt)
    full = [counter for counter in counters if _retry_after([counter], attempt)]
    if any(not counter.refused_at for counter in full):
        _record_refusal(attempt, _LIMITED)  # once: an attacker must not be able to fill the audit log
    for counter in full or counters:
        counter.refused_at = attempt.at if full else 0
        counter.failures = [*_recent(counter, attempt.at), *([] if full else [attempt.at])]
    SignInCounter.objects.bulk_update(counters, ["failures", "refused_at"])
    _prune(attempt.at)
    return _retry_after(full, attempt)


@transaction.atomic
def uncount(attempt: Attempt) -> None:
    """Stop counting an attempt as failed."""
    counters = _locked(attempt)
    for counter in counters:
        counter.failures = [failure for failure in counter.failures if failure != attempt.at]
    SignInCounter.objects.bulk_update(counters, ["failures"])


def _locked(attempt: Attempt) -> list[SignInCounter]:
    return list(SignInCounter.objects.filter(key__in=attempt.keys).select_for_update().order_by("key"))


def _retry_after(counters: Iterable[SignInCounter], attempt: Attempt) -> int:
    """Seconds until all of the counters have room again; 0 if they have it now."""
    recent = (_recent(counter, attempt.at) for counter in counters)
    # The counter has room again when the oldest of its last LIMIT failures leaves the window.
    waits = [failures[-LIMIT] + WINDOW - attempt.at for failures in recent if len(failures) >= LIMIT]
    return max(1, math.ceil(max(waits))) if waits else 0


def _recent(counter: SignInCounter, at: float) -> list[float]:
    return [failure for failure in counter.failures if failure > at - WINDOW]


def _prune(at: float) -> None:
    """Delete some counters whose failures are all too old to matter."""
    old = SignInCounter.objects.filter(updated_at__lt=at - WINDOW).select_for_update(skip_locked=True)
    SignInCounter.objects.filter(key__in=list(old.values_list("key", flat=True)[:_PRUNED_AT_ONCE])).delete()


def _target(user: AbstractBaseUser) -> Target:
    return Target("user", str(user.pk), user.get_username(), getattr(user, "organization_id", None))


def _address(text: str) -> str:
    """The client's address in its usual form; IPv4 also where a dual-stack socket shows it as IPv6."""
    try:
        address = ip_address(text)
    except ValueError:
        return "unknown"
    return str((isinstance(address, IPv6Address) and address.ipv4_mapped) or address)


def _host(address: str) -> str:
    """What counts as one address: of IPv6 the /64 network, which a single customer gets (RFC 6177)."""
    return _network(address) if ":" in address else address


def _network(address: str) -> str:
    """The network of one customer: /24 of IPv4, /64 of IPv6."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((found, 64 if isinstance(found, IPv6Address) else 24), strict=False))
