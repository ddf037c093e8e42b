from django.apps import AppConfig


class IdentityConfig(AppConfig):
    name = "registry_control.identity"
    label = "identity"
