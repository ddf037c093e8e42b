from django.apps import AppConfig


class CatalogConfig(AppConfig):
    name = "registry_control.catalog"
    label = "catalog"
