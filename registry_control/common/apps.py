from django.apps import AppConfig


class CommonConfig(AppConfig):
    name = "registry_control.common"
    label = "common"
