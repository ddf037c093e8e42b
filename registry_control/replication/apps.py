from django.apps import AppConfig


class ReplicationConfig(AppConfig):
    name = "registry_control.replication"
    label = "replication"
