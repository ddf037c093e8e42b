"""Requests that promise a blob, and the same by a worker that replicates, in steps."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from registry_control.catalog import ingest
from registry_control.catalog.errors import ImageNotFound, UploadNotFound
from registry_control.catalog.services import images
from registry_data.oci.digest import Digest
from registry_data.registry import blobs, mounts, upload_sessions
from registry_data.registry import uploads as upload_use_cases
from registry_data.registry.authorization import require_push
from tests.integration.gc.documents import CONTENTS
from tests.integration.gc.installation import LEASE, PROMISED_FOR, TO_THE_END, Installation, Request


class Requests(Installation):
    """Begins requests and checks which of them must succeed."""

    def _request(
        self,
        way: str,
        repository: int,
        source: int,
        digest: str,
        *,
        pieces: int = 1,
        count: int = TO_THE_END,
    ) -> Request:
        """Begin a request: an upload, a mount from a source, a HEAD, or the replication of a blob.

        A client skips the upload after a HEAD. A replication continues where a killed worker has stopped.
        """
        kept, is_there = self._is_kept(repository, digest), self._namespace(repository).is_there
        call: Callable[[Request], Any]
        match way:
            case "upload":
                call, sure = lambda _: self._upload(repository, digest, pieces), is_there
            case "replicate":
                call, sure = lambda request: self._replicate(request, repository, digest), is_there
            case "head":
                call, sure = lambda _: self._head(repository, digest), kept
            case _:
                is_own = self._key(source) is self._key(repository)
                call = lambda _: self._mount(repository, source, digest)  # noqa: E731
                sure = kept and is_own and self._is_kept(source, digest)
        patience = PROMISED_FOR if way in ("upload", "replicate") else timedelta()
        return self._begin(call, repository, digest, count, sure=sure, patience=patience)

    def _upload(self, repository: int, digest: str, pieces: int) -> bool:
        name, content, claimed = self.names[repository], CONTENTS[digest], Digest.parse(digest)
        credentials = self._credentials(repository)
        pusher = require_push(credentials, name)
        session = upload_sessions.start(pusher, algorithm="sha256", store=self.store)
        half, offset = (len(content) // 2 if pieces == 2 else 0), 0
        if half:
            upload = upload_sessions.find(credentials, name, session, purpose=upload_sessions.TO_WRITE)
            offset = upload_use_cases.append_small(content[:half], upload, at=0, store=self.store)
        upload = upload_sessions.find(credentials, name, session, purpose=upload_sessions.TO_WRITE)
        upload_use_cases.finish_small(content[half:], claimed, upload, at=offset, store=self.store)
        return True

    def _mount(self, repository: int, source: int, digest: str) -> bool:
        return mounts.mount(
            self._credentials(repository),
            self.names[repository],
            Digest.parse(digest),
            source=self.names[source],
        )

    def _head(self, repository: int, digest: str) -> bool:
        credentials, name, parsed = (
            self._credentials(repository),
            self.names[repository],
            Digest.parse(digest),
        )
        found = blobs.find(credentials, name, parsed, lease=LEASE)
        if found.lease_is_due:
            blobs.renew_lease(credentials, name, parsed)
        return True

    def _replicate(self, request: Request, repository: int, digest: str) -> bool:
        """Copy a blob as the worker does, which tries again when its image was removed meanwhile."""
        try:
            return self._copy(request, repository, digest)
        except ImageNotFound:
            request.session.clear()
            return self._copy(request, repository, digest)

    def _copy(self, request: Request, repository: int, digest: str) -> bool:
        claimed, content = Digest.parse(digest), CONTENTS[digest]
        name, key = self.names[repository], self._key(repository)
        pusher = require_push(self._credentials(repository), name)
        assert pusher.record.namespace_id is not None
        image_id = images.get_or_create(
            actor=key.actor, namespace_id=pusher.record.namespace_id, name=name.image
        )

        def read(offset: int) -> Iterator[bytes]:
            middle = (offset + len(content)) // 2
            yield content[offset:middle]
            yield content[middle:]

        session = self.interrupted.pop((repository, digest), None)
        if session is not None:
            request.session.append(session)
            try:
                ingest.continue_blob(session, read, image_id=image_id, claimed=claimed, store=self.store)
            except UploadNotFound:
                request.session.clear()
            else:
                return True
        session = ingest.start_blob(actor=key.actor, image_id=image_id, claimed=claimed, store=self.store)
        request.session.append(session)
        ingest.continue_blob(session, read, image_id=image_id, claimed=claimed, store=self.store)
        return True
