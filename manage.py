#!/usr/bin/env python3
import gc
import os
import signal
import sys

if __name__ == "__main__":
    if os.getpid() == 1:
        # The kernel ignores signals to process 1 that have no handler: in a container without an init,
        # SIGTERM would not end a command, nor a server that is still starting.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if sys.argv[1:] in (["version"], ["--version"]):  # Django answers these with its own version.
        from registry_control.common.version import version

        print(version())
        sys.exit()
    if sys.argv[1:2] == ["probe"]:  # Django's start takes a second, and health checks run often.
        from registry_control.serving.probe import main

        sys.exit(main(sys.argv[2:]))

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_control.settings")
    import django
    from django.core.management import execute_from_command_line
    from django.db import InterfaceError, OperationalError

    from registry_control.serving.process_tuning import rare_collections

    try:
        with rare_collections():
            django.setup()
        execute_from_command_line(sys.argv)
    except (InterfaceError, OperationalError) as error:
        reason = " ".join(str(error).split())
        sys.exit(f"manage.py {' '.join(sys.argv[1:2])}: the database cannot be used: {reason}")
    finally:
        # Otherwise the interpreter's last collections visit all modules: up to half the time of a command.
        gc.freeze()
