"""The driver uses private methods of the minio SDK, so an update of the SDK must not change them."""

import inspect
from collections.abc import Sequence

import pytest
from minio import Minio

# Parameters as registry_data/storage/s3/bucket.py passes them: by position, then by keyword.
USED: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "_execute": (
        ("method", "bucket_name", "object_name"),
        ("body", "headers", "query_params", "preload_content", "no_body_trace"),
    ),
    "_delete_objects": (("bucket_name", "delete_object_list"), ("quiet",)),
    "_create_multipart_upload": (("bucket_name", "object_name", "headers"), ()),
    "_upload_part_copy": (("bucket_name", "object_name", "upload_id", "part_number", "headers"), ()),
    "_list_parts": (("bucket_name", "object_name", "upload_id"), ("part_number_marker",)),
    "_list_multipart_uploads": (("bucket_name",), ("prefix", "key_marker", "max_uploads")),
    "_abort_multipart_upload": (("bucket_name", "object_name", "upload_id"), ()),
}


@pytest.mark.parametrize("name", USED)
def test_a_private_method_takes_the_arguments_that_the_driver_passes(name: str) -> None:
    by_position, by_keyword = USED[name]
    signature = inspect.signature(getattr(Minio, name))
    positional = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    assert positional[1 : 1 + len(by_position)] == list(by_position)  # after self
    signature.bind(None, *by_position, **dict.fromkeys(by_keyword))


def test_no_other_private_method_is_used() -> None:
    from registry_data.storage.s3 import bucket

    source = inspect.getsource(bucket)
    used = {name for name in dir(Minio) if name.startswith("_") and f"._client.{name}(" in source}
    assert used == set(USED)
