"""Blobs that tests send to other registries."""

from registry_data.client.registry import RemoteRegistry
from registry_data.client.uploads import RemoteUpload
from registry_data.oci.digest import Digest


def send_blob(remote: RemoteRegistry, repository: str, data: bytes) -> Digest:
    """Upload a blob in one piece."""
    return finish_upload(remote.start_upload(repository), data)


def finish_upload(upload: RemoteUpload, data: bytes) -> Digest:
    """Send the rest of a blob, and complete its upload."""
    if upload.offset < len(data):
        upload.append(data[upload.offset :])
    digest = Digest.of(data)
    upload.finish(digest)
    return digest
