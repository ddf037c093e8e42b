from django.apps import AppConfig
from django.contrib.admin.apps import SimpleAdminConfig


class AdministrationConfig(AppConfig):
    name = "registry_control.administration"
    label = "administration"


class DjangoAdminConfig(SimpleAdminConfig):
    default_site = "registry_control.administration.site.RegistryAdminSite"
