"""What retention may remove from an image of the model, by docs/garbage-collection.md.

Written without the product's planner, so that it cannot repeat its mistakes.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Final

from tests.integration.gc.life_cycle import ImageModel

Policy = Mapping[str, Any]

_DAY: Final = timedelta(days=1)
NOTHING: Final[Policy] = {"enabled": False, "rules": []}
POLICIES: Final[tuple[Policy, ...]] = (
    {"rules": [{"images": "*", "tags": "*", "keep_newest": 1}]},
    {
        "rules": [
            {"images": "*", "tags": "v*", "keep_newest": 1},
            {"images": "*", "tags": "*", "keep_days_since_pulled": 1},
        ],
        "protected_tags": ["v1"],
    },
    {"rules": [{"images": "app", "tags": "*", "keep_days_since_tagged": 1}], "untagged_days": 1},
    {"rules": [], "untagged_days": 1, "protected_tags": ["v*"], "protected_except": ["v2"]},
)


def protects(policy: Policy, tag: str) -> bool:
    """Whether a tag can be neither moved nor deleted."""
    return _matches(policy.get("protected_tags", ()), tag) and not _matches(
        policy.get("protected_except", ()), tag
    )


def _matches(globs: Any, name: str) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def may_remove_tag(policy: Policy, name: str, image: ImageModel, tag: str, moment: datetime) -> bool:
    """Whether the rules let a tag of the image of that name go; true if that is not known."""
    rule = _rule_for(policy, name, tag)
    if rule is None or protects(policy, tag):
        return False
    times = image.tag_times[tag]
    if times.tagged_at is None:
        return True
    if "keep_newest" in rule and _newer(policy, name, image, tag) < rule["keep_newest"]:
        return False
    tagged_for = moment - times.tagged_at
    used_for = moment - max(times.tagged_at, times.pulled_at or times.tagged_at)
    return not (
        ("keep_days_since_tagged" in rule and tagged_for < rule["keep_days_since_tagged"] * _DAY)
        or ("keep_days_since_pulled" in rule and used_for < rule["keep_days_since_pulled"] * _DAY)
    )


def _rule_for(policy: Policy, name: str, tag: str) -> Mapping[str, Any] | None:
    if not policy.get("enabled", True):
        return None
    matching = (
        rule
        for rule in policy["rules"]
        if fnmatchcase(name, rule["images"]) and fnmatchcase(tag, rule["tags"])
    )
    return next(matching, None)


def _newer(policy: Policy, name: str, image: ImageModel, tag: str) -> int:
    """How many tags of the same rule are newer, or may be."""
    rule, own = _rule_for(policy, name, tag), image.tag_times[tag].tagged_at
    assert own is not None
    others = [other for other in image.tags if other != tag and _rule_for(policy, name, other) is rule]
    times = {other: image.tag_times[other].tagged_at for other in others}
    return sum(at is None or (at, other) > (own, tag) for other, at in times.items())


def removable_manifests(policy: Policy, image: ImageModel, moment: datetime) -> set[str]:
    """The manifests that go: neither they, nor an index that lists them, nor their subject is kept."""
    days = policy.get("untagged_days")
    if days is None or not policy.get("enabled", True):
        return set()
    reachable = image.reachable()
    waiting = [
        digest
        for digest, manifest in image.manifests.items()
        if digest in reachable
        or (moment - image.used_at[digest] < days * _DAY and manifest.subject not in image.manifests)
    ]
    kept: set[str] = set()
    while waiting:
        digest = waiting.pop()
        if digest in image.manifests and digest not in kept:
            kept.add(digest)
            waiting += [*image.manifests[digest].children, *image.referrers(digest)]
    return image.manifests.keys() - kept


def tags_left_too_long(policy: Policy, name: str, image: ImageModel) -> set[str]:
    """The tags that should have gone, when all days of the rules are over."""
    left = {tag for tag in image.tags if not protects(policy, tag) and _rule_for(policy, name, tag)}
    newest = {tag for tag in left if "keep_newest" in (_rule_for(policy, name, tag) or {})}
    return left - newest if len(newest) <= 1 else left
