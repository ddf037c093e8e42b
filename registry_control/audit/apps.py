from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "registry_control.audit"
    label = "audit"
