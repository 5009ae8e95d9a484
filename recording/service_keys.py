"""The keys of what the daemon keeps in the bucket beside recordings: everything under `.vcu/`. Pure.

No key path begins so: a folder whose name begins with a dot gets another one (`key_path`).
"""

FOLDER = ".vcu/"


def service_folder(prefix: str) -> str:
    """Return the key prefix under which no recording lies.

    Parameters:
        prefix: `S3_PREFIX`: empty, or ending in `/`.
    """
    return prefix + FOLDER


def marker_key(prefix: str) -> str:
    """Return the key of the object that says which store this is. Parameters as above."""
    return f"{service_folder(prefix)}store.json"
