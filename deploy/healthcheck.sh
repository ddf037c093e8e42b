#!/bin/sh
# Health of a container: it probes the roles that the container's command runs.
set -eu

probe() {
    for role; do python manage.py probe "$role"; done
}

case "$(tr '\0' ' ' </proc/1/cmdline)" in
*" serve control "*) probe control ;;
*" serve data "*) probe data ;;
*" serve worker "*) probe worker ;;
*" up "*) probe control data worker ;;
*) ;; # a job: its exit status tells
esac
