"""Valid manifests for tests, with changes by keyword."""

import json
from http import HTTPStatus
from typing import Any

import pytest

from registry_data.oci.digest import Digest
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.manifest import parse_manifest
from registry_data.oci.media_types import OCI_MANIFEST

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
FOREIGN_TYPE = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

Json = dict[str, Any]


def descriptor(content: bytes = b"{}", media_type: str = CONFIG_TYPE, **more: object) -> Json:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content), **more}


def image(**more: object) -> Json:
    layers = [descriptor(b"one", LAYER_TYPE), descriptor(b"two", LAYER_TYPE)]
    return {"schemaVersion": 2, "config": descriptor(), "layers": layers, **more}


def index(**more: object) -> Json:
    return {"schemaVersion": 2, "manifests": [descriptor(b"child", OCI_MANIFEST)], **more}


def encode(document: object) -> bytes:
    return json.dumps(document).encode()


def error_of(payload: bytes, content_type: str | None = None) -> ProtocolError:
    with pytest.raises(ProtocolError) as raised:
        parse_manifest(payload, content_type)
    assert raised.value.code is ErrorCode.MANIFEST_INVALID
    return raised.value


def assert_rejected(document: Json, message: str, content_type: str | None = None) -> None:
    error = error_of(encode(document), content_type)
    assert message in error.message
    assert error.status == HTTPStatus.BAD_REQUEST
