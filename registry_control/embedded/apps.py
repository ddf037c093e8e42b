from django.apps import AppConfig


class EmbeddedConfig(AppConfig):
    name = "registry_control.embedded"
    label = "embedded"
