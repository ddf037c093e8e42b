from django.apps import AppConfig


class AdministrationConfig(AppConfig):
    name = "registry_control.administration"
    label = "administration"
