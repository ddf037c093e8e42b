"""Fill the database that the settings name; no other process may use it meanwhile.

python -m bench.growth.load ACCESS_KEY MANIFESTS GIANT_TAGS
"""

import os
import sys

import django


def main(access_key: str, manifests: str, giant_tags: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_control.settings")
    django.setup()

    from bench.growth.fill import fill
    from bench.growth.tables import Size

    fill(access_key, Size(int(manifests), int(giant_tags)))


if __name__ == "__main__":
    main(*sys.argv[1:])
