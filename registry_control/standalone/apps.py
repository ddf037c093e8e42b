from django.apps import AppConfig


class StandaloneConfig(AppConfig):
    name = "registry_control.standalone"
    label = "standalone"
