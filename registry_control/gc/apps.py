from django.apps import AppConfig


class GarbageCollectionConfig(AppConfig):
    name = "registry_control.gc"
    label = "gc"
    verbose_name = "Garbage collection"
