#!/usr/bin/env python3
import os
import sys

if __name__ == "__main__":
    if sys.argv[1:] in (["version"], ["--version"]):  # Django answers these with its own version.
        from registry_control.common.version import version

        print(version())
        sys.exit()

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_control.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
