from django.apps import AppConfig


class NamespacesConfig(AppConfig):
    name = "registry_control.namespaces"
    label = "namespaces"
