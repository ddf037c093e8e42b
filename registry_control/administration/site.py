"""The site object of the Django admin."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from registry_control.administration.lookups import check_lengths, refusing_bad_values
from registry_control.common.version import version


class RegistryAdminSite(admin.AdminSite):
    """Django's site with the product's titles and strict handling of lookup values."""

    site_header = f"Stowage {version()}"
    site_title = "Stowage"
    index_title = "Registry"
    site_url = None  # the header links to no other site

    def autocomplete_view(self, request: HttpRequest) -> HttpResponse:
        """Search for the choices of a foreign key; a term that the database refuses is a 400."""
        check_lengths(request)
        with refusing_bad_values():
            return super().autocomplete_view(request)
