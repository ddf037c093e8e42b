"""What a WSGI server is given: the control plane."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_control.settings")
application = get_wsgi_application()
