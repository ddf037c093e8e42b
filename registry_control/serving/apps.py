from django.apps import AppConfig


class ServingConfig(AppConfig):
    name = "registry_control.serving"
    label = "serving"
