from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "registry_control.access"
    label = "access"
