"""Retention: which tags and untagged manifests the rules of a namespace keep. Pure functions (ADR 62).

The first rule whose globs match an image and a tag decides about the tag. It is kept if one of the rule's
keeps holds it, and removed otherwise; a tag that no rule matches is kept, and so is a protected tag.

What was restored from the recycle bin stays for the period of the bin, whatever the rules say, and the days
of every keep count from the restore if that is later.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heappush, heappushpop
from typing import Any, Final, TypeAlias

from registry_control.common.errors import InvalidArgument
from registry_control.common.globs import Globs
from registry_control.namespaces.protection import Protection

MAX_RULES: Final = 100
MAX_GLOBS: Final = 100  # of protected tags, and of exceptions
GLOB_LENGTH: Final = 255
MAX_NUMBER: Final = 2**31 - 1
ACCURACY: Final = timedelta(hours=1)
"""How much later than recorded the last pull, or the last push of the same manifest, may have been."""

_IMAGE_GLOB: Final = re.compile(r"[a-z0-9._/*?-]+")
_TAG_GLOB: Final = re.compile(r"[A-Za-z0-9._*?-]+")
_DAY: Final = 24 * 60 * 60  # seconds
_RULE_FIELDS: Final = ("images", "tags", "keep_newest", "keep_days_since_tagged", "keep_days_since_pulled")
_POLICY_FIELDS: Final = ("enabled", "rules", "untagged_days", "protected_tags", "protected_except")

Json: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule for the tags that its globs match; None for a keep that it does not have."""

    images: str
    tags: str
    keep_newest: int | None = None
    keep_days_since_tagged: int | None = None
    keep_days_since_pulled: int | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """The retention of a namespace."""

    enabled: bool = False
    rules: tuple[Rule, ...] = ()
    untagged_days: int | None = None
    protected_tags: tuple[str, ...] = ()
    protected_except: tuple[str, ...] = ()

    @property
    def removes(self) -> bool:
        """Whether anything is to be enforced."""
        return self.enabled and bool(self.rules or self.untagged_days)

    @property
    def longest(self) -> timedelta:
        """The greatest age by which anything is removed; a century at most."""
        ages = [self.untagged_days]
        for rule in self.rules:
            ages += [rule.keep_days_since_tagged, rule.keep_days_since_pulled]
        return timedelta(days=min(max((days for days in ages if days is not None), default=0), 36_500))

    def as_json(self) -> dict[str, Any]:
        """The fields as the API shows them."""
        return {
            "enabled": self.enabled,
            "rules": [{name: getattr(rule, name) for name in _RULE_FIELDS} for rule in self.rules],
            "untagged_days": self.untagged_days,
            "protected_tags": list(self.protected_tags),
            "protected_except": list(self.protected_except),
        }


NOTHING: Final = Policy()
"""The retention of a namespace for which none was set."""


def parse(document: object) -> Policy:
    """Read a retention as a client sends it. What is absent has no effect; `enabled` is true by default.

    Raises:
        InvalidArgument: there is no document, or for the first field that is unknown or malformed.
    """
    if document is None:
        message = "a body is required: write a JSON object; {} is a retention without rules"
        raise InvalidArgument("body", message, reason="required")
    fields = _fields(document, "body", _POLICY_FIELDS)
    rules = _list(fields.get("rules", []), "rules", MAX_RULES)
    return Policy(
        enabled=_flag(fields.get("enabled", True), "enabled"),
        rules=tuple(_rule(rule, f"rules[{number}]") for number, rule in enumerate(rules)),
        untagged_days=_number(fields.get("untagged_days"), "untagged_days"),
        protected_tags=_globs(fields.get("protected_tags", []), "protected_tags"),
        protected_except=_globs(fields.get("protected_except", []), "protected_except"),
    )


def _rule(document: object, where: str) -> Rule:
    fields = _fields(document, where, _RULE_FIELDS)
    for name in ("images", "tags"):
        if name not in fields:
            raise InvalidArgument(f"{where}.{name}", "write a glob, such as *", reason="required")
    return Rule(
        images=_glob(fields["images"], f"{where}.images", _IMAGE_GLOB),
        tags=_glob(fields["tags"], f"{where}.tags", _TAG_GLOB),
        **{name: _number(fields.get(name), f"{where}.{name}") for name in _RULE_FIELDS[2:]},
    )


def _fields(document: object, where: str, known: Sequence[str]) -> Json:
    if not isinstance(document, Mapping):
        raise InvalidArgument(where, "write a JSON object")
    prefix = "" if where == "body" else f"{where}."
    for name in document:
        if name not in known:
            raise InvalidArgument(
                f"{prefix}{str(name)[:80]}",
                f"there is no such field; the fields are {', '.join(known)}",
                reason="unknown",
            )
    return document


def _list(value: object, where: str, limit: int) -> Sequence[object]:
    if not isinstance(value, list):
        raise InvalidArgument(where, "write a list")
    if len(value) > limit:
        raise InvalidArgument(where, f"write at most {limit}", reason="constraint")
    return value


def _globs(value: object, where: str) -> tuple[str, ...]:
    listed = _list(value, where, MAX_GLOBS)
    return tuple(_glob(glob, f"{where}[{number}]", _TAG_GLOB) for number, glob in enumerate(listed))


def _glob(value: object, where: str, form: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        allowed = (
            "lower-case letters, digits and . _ - /" if form is _IMAGE_GLOB else "letters, digits and . _ -"
        )
        raise InvalidArgument(where, f"write a glob of {allowed}, in which * is any text and ? one character")
    if len(value) > GLOB_LENGTH:
        raise InvalidArgument(where, f"write at most {GLOB_LENGTH} characters", reason="constraint")
    return value


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(where, "write true or false")
    return value


def _number(value: object, where: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidArgument(where, "write a whole number or null")
    if not 1 <= value <= MAX_NUMBER:
        raise InvalidArgument(where, f"write a number from 1 to {MAX_NUMBER}, or null", reason="constraint")
    return value


@dataclass(frozen=True, slots=True)
class Times:
    """The times that all decisions about one image depend on."""

    now: datetime
    pulls_since: datetime | None = None  # when the registry began to record pulls, if tags may be older
    restored_at: datetime | None = None  # the image or its namespace as a whole
    restored_stays: timedelta = timedelta()  # how long what was restored is kept in any case

    def restored(self, made_at: datetime, restored_at: datetime | None) -> datetime | None:
        """When a tag or manifest was restored last, by itself or with its image; None if never.

        Args:
            made_at: the push, or when the tag got its manifest: a tag that was moved since counts as new.
            restored_at: the restore of the tag or manifest itself.
        """
        found = [each for each in (restored_at, self.restored_at) if each is not None and each > made_at]
        return max(found, default=None)

    def is_held(self, restored_at: datetime | None) -> bool:
        """Whether what was restored at that time is kept in any case."""
        return restored_at is not None and self.now - restored_at < self.restored_stays


@dataclass(frozen=True, slots=True)
class Tag:
    """What a decision about a tag depends on, besides the other tags of its image."""

    name: str
    tagged_at: datetime  # when it last got its manifest
    pulled_at: datetime | None  # None: never since pulls are recorded
    restored_at: datetime | None = None  # by itself or with its manifest
    pushed_at: datetime | None = None  # when the manifest that it has was pushed under it again, if ever


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a tag is kept, why, and the number of the rule that decided (1 for the first), if any."""

    keep: bool
    reason: str
    rule: int | None = None


class ImageRules:
    """The rules of a policy for one image, compiled."""

    def __init__(self, policy: Policy, image: str, times: Times) -> None:
        """Choose the rules whose globs match the image; `image` is its name without the namespace."""
        self._rules = {
            number: rule
            for number, rule in enumerate(policy.rules, start=1)
            if Globs([rule.images]).first(image) is not None
        }
        self._tags = Globs(rule.tags for rule in self._rules.values())
        self._numbers = {rule.tags: number for number, rule in reversed(self._rules.items())}
        self._protection = Protection(policy.protected_tags, policy.protected_except)
        self._times = times

    def __bool__(self) -> bool:
        """Whether a rule may match a tag of the image."""
        return bool(self._rules)

    def rule_for(self, tag: str) -> int | None:
        """The number of the first rule that matches a tag."""
        glob = self._tags.first(tag)
        return None if glob is None else self._numbers[glob]

    def limits(self) -> dict[int, int]:
        """How many of the newest tags each rule keeps, of the rules that do."""
        return {
            number: rule.keep_newest for number, rule in self._rules.items() if rule.keep_newest is not None
        }

    def decide(self, tag: Tag, *, number: int | None, is_newest: bool) -> Decision:
        """Decide about a tag.

        Args:
            tag: its facts.
            number: the result of `rule_for`.
            is_newest: whether it is among the newest tags that the rule decides about and keeps.
        """
        if (protected := self._protection.rule_for(tag.name)) is not None:
            return Decision(True, f'protected by "{protected}"', number)
        if number is None:
            return Decision(True, "no rule matches it")
        rule = self._rules[number]
        if held := next(self._held_by(rule, tag, is_newest=is_newest), None):
            return Decision(True, f"rule {number} keeps it: {held}", number)
        restored_at = self._restored_at(tag)
        if restored_at is not None and self._times.is_held(restored_at):
            until = _shown(restored_at + self._times.restored_stays)
            return Decision(
                True, f"it was restored at {_shown(restored_at)}, and stays until {until}", number
            )
        return Decision(False, f"rule {number} does not keep it{self._missed(rule, tag)}", number)

    def _restored_at(self, tag: Tag) -> datetime | None:
        return self._times.restored(tag.tagged_at, tag.restored_at)

    def _held_by(self, rule: Rule, tag: Tag, *, is_newest: bool) -> Iterator[str]:
        """The keeps of a rule that hold a tag."""
        restored_at = self._restored_at(tag)
        now = self._times.now
        if rule.keep_newest is not None and is_newest:
            yield f"it is among the newest {rule.keep_newest}"
        for days, since, verb in (
            (rule.keep_days_since_tagged, tag.tagged_at, "tagged"),
            (rule.keep_days_since_pulled, self._used_at(tag), "pulled or pushed"),
        ):
            if days is not None and not is_over(since, days, now):
                yield f"it was {verb} in the last {_days(days)}"
            elif days is not None and restored_at is not None and not is_over(restored_at, days, now):
                yield f"it was restored in the last {_days(days)}"

    def _used_at(self, tag: Tag) -> datetime:
        # A push of the digest that the tag has already is not recorded within an hour of the push before it.
        pushed_at = max(tag.tagged_at, tag.pushed_at or tag.tagged_at) + ACCURACY
        return last_use(pushed_at, tag.pulled_at, pulls_since=self._times.pulls_since)

    def _missed(self, rule: Rule, tag: Tag) -> str:
        missed = []
        if rule.keep_newest is not None:
            missed.append(f"it is not among the newest {rule.keep_newest}")
        if rule.keep_days_since_tagged is not None:
            missed.append(f"it was tagged at {_shown(tag.tagged_at)}")
        if rule.keep_days_since_pulled is not None:
            missed.append(f"it was pulled {f'last at {_shown(tag.pulled_at)}' if tag.pulled_at else 'never'}")
        if (restored_at := self._restored_at(tag)) is not None:
            missed.append(f"it was restored at {_shown(restored_at)}")
        return f": {', and '.join(missed)}" if missed else ", nor any other tag that it matches"


def last_use(pushed_at: datetime, pulled_at: datetime | None, *, pulls_since: datetime | None) -> datetime:
    """The latest time at which a tag or manifest may have been used.

    A pull is recorded within an hour. Without a recorded pull the time of the push counts: content that was
    pushed a minute ago has not been pulled yet. Content that is older than the records of pulls counts as
    used until these began.
    """
    if pulled_at is not None:
        return max(pushed_at, pulled_at + ACCURACY)
    return max(pushed_at, pulls_since) if pulls_since is not None else pushed_at


def is_over(since: datetime, days: int, now: datetime) -> bool:
    """Whether a number of days has passed."""
    return (now - since).total_seconds() >= days * _DAY


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _days(number: int) -> str:
    return "day" if number == 1 else f"{number} days"


class Newest:
    """The newest tags of an image for each rule that keeps a number of them; memory for that number only."""

    def __init__(self, limits: Mapping[int, int]) -> None:
        """Take the result of `ImageRules.limits`."""
        self._limits = limits
        self._heaps: dict[int, list[tuple[datetime, str]]] = {number: [] for number in limits}

    def add(self, number: int | None, tag: Tag) -> None:
        """Count a tag that a rule decides about; of tags of one time, the last by name is the newest."""
        if number is None or number not in self._limits:
            return
        heap, entry = self._heaps[number], (tag.tagged_at, tag.name)
        if len(heap) < self._limits[number]:
            heappush(heap, entry)
        else:
            heappushpop(heap, entry)

    def chosen(self) -> dict[int, frozenset[str]]:
        """The names of the tags that each rule keeps, once all tags were added."""
        return {number: frozenset(name for _, name in heap) for number, heap in self._heaps.items()}


@dataclass(frozen=True, slots=True)
class Untagged:
    """A manifest that may be removed, or that keeps others, with what it depends on."""

    is_kept: bool  # a tag reaches it, or it was restored not long ago
    is_over: bool  # it was not used for the number of days
    parents: tuple[int, ...] = ()  # indexes that list it
    subject: int | None = None  # if the image has it


def removable(manifests: Mapping[int, Untagged]) -> set[int]:
    """The manifests that go, of a set that contains every parent and subject of its members.

    A manifest is kept by being used, by an index that is kept, and by a subject that is kept. One with a
    subject goes with it, however new it is. What is in a cycle and is kept by nothing outside of it goes.
    """
    dependents: dict[int, list[int]] = {}
    for id_, manifest in manifests.items():
        for holder in (*manifest.parents, *(() if manifest.subject is None else (manifest.subject,))):
            dependents.setdefault(holder, []).append(id_)
    waiting = [
        id_ for id_, each in manifests.items() if each.is_kept or (not each.is_over and each.subject is None)
    ]
    kept = set(waiting)
    while waiting:
        new = [id_ for id_ in dependents.get(waiting.pop(), ()) if id_ not in kept]
        kept.update(new)
        waiting += new
    return manifests.keys() - kept
