from registry_data.storage.base import Key


def blob_key(algorithm: str, encoded: str, generation: str) -> Key:
    return Key(f"blobs/{algorithm}/{encoded[:2]}/{encoded}.{generation}")
