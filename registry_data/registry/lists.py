"""Use cases that list repositories, tags and referrers."""

from collections.abc import Collection
from dataclasses import dataclass

from registry_control.access.policy import Action
from registry_control.access.services import Caller
from registry_control.catalog.selectors import content, resolve
from registry_data.oci.digest import Digest
from registry_data.oci.paging import Page
from registry_data.oci.reference import Repository
from registry_data.registry.authorization import (
    CATALOG_SCOPE,
    Credentials,
    identify,
    require,
    require_catalog_access,
    scope_of,
    unknown_repository,
)
from registry_data.registry.use_case import INLINE_LIMIT, use_case


@dataclass(frozen=True, slots=True)
class TagPage:
    """Tags in byte order; `cacheable_until` is the Unix time at which the caller's token or key expires."""

    names: list[str]
    has_more: bool
    cacheable_until: float


@dataclass(frozen=True, slots=True)
class ReferrersPage:
    """A page of a referrers list, None when it is empty; `cacheable_until` as in TagPage.

    `descriptors` are the entries as JSON, or None if they are so long that `read_descriptors` must be called
    in a thread.
    """

    page: content.ReferrersPage | None
    descriptors: bytes | None
    cacheable_until: float


@dataclass(frozen=True, slots=True)
class CatalogPage:
    """Names of repositories in byte order; `cacheable_until` as in TagPage.

    `scopes` are the scopes of the change log that the page depends on; None if it cannot be cached.
    """

    names: list[str]
    has_more: bool
    cacheable_until: float
    scopes: Collection[str] | None


def catalog(credentials: Credentials, page: Page) -> CatalogPage:
    """List a page of the repositories on which the caller has a role (OCI 121).

    Raises:
        AccessDenied: the caller is anonymous, or the token has another scope.
    """
    with use_case():
        caller = identify(credentials, scope=CATALOG_SCOPE)
        require_catalog_access(caller)
        if page.n == 0:
            return CatalogPage([], has_more=False, cacheable_until=caller.ends_at, scopes=None)
        names = content.repository_names(caller.principal, after=page.last or "", limit=page.n + 1)
        scopes = content.scopes_of_repository_names(caller.principal)
        return CatalogPage(names[: page.n], len(names) > page.n, caller.ends_at, scopes)


def _readable(credentials: Credentials, repository: Repository) -> tuple[Caller, resolve.RepositoryRecord]:
    caller = identify(credentials, scope=scope_of(repository, Action.PULL))
    record = resolve.repository(repository.namespace, repository.image)
    require(caller, Action.PULL, repository, record)
    return caller, record


def tags(credentials: Credentials, repository: Repository, page: Page) -> TagPage:
    """List a page of the tags of an image (OCI 116-120).

    Raises:
        AccessDenied: the caller may not pull.
        ProtocolError: NAME_UNKNOWN if there is no such repository.
    """
    with use_case():
        caller, record = _readable(credentials, repository)
        if record.image_id is None:
            raise unknown_repository(repository)
        if page.n == 0:
            return TagPage([], has_more=False, cacheable_until=caller.ends_at)
        names = content.tag_names(record.image_id, after=page.last or "", limit=page.n + 1)
        return TagPage(names[: page.n], has_more=len(names) > page.n, cacheable_until=caller.ends_at)


def referrers(
    credentials: Credentials,
    repository: Repository,
    subject: Digest,
    *,
    artifact_type: str | None,
    after: int,
    limit: int,
) -> ReferrersPage:
    """List a page of the manifests that refer to a subject, which need not exist (OCI 123-128).

    Raises:
        AccessDenied: the caller may not pull.
    """
    with use_case():
        caller, record = _readable(credentials, repository)
        # PostgreSQL accepts no NUL in parameters; no artifact type contains one.
        if record.image_id is None or "\0" in (artifact_type or ""):
            return ReferrersPage(None, b"", cacheable_until=caller.ends_at)
        selected = content.Referrers(record.image_id, str(subject), artifact_type)
        page = content.referrers_page(selected, after=after, limit=limit)
        if page is None:
            return ReferrersPage(None, b"", cacheable_until=caller.ends_at)
        descriptors = _join_descriptors(page) if page.size <= INLINE_LIMIT else None
        return ReferrersPage(page, descriptors, cacheable_until=caller.ends_at)


def read_descriptors(page: content.ReferrersPage) -> bytes:
    """Read the entries of a page as JSON, separated by commas.

    Raises:
        ProtocolError: UNAVAILABLE if the database does not respond.
    """
    with use_case():
        return _join_descriptors(page)


def _join_descriptors(page: content.ReferrersPage) -> bytes:
    return b",".join(content.referrer_descriptors(page))
