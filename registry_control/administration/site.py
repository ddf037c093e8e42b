"""The site object of the Django admin."""

from http import HTTPStatus
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.loader import render_to_string
from django.urls import reverse

from registry_control.administration.lookups import check_lengths, refusing_bad_values
from registry_control.administration.own_password import OwnPasswordView
from registry_control.administration.sign_in import SignInRefused, TooManyFailures
from registry_control.administration.sign_in_form import SignInForm
from registry_control.common.version import version


class RegistryAdminSite(admin.AdminSite):
    """Django's site with the product's titles, limited sign-ins and strict handling of lookup values."""

    site_header = f"Stowage {version()}"
    site_title = "Stowage"
    index_title = "Registry"
    site_url = None  # the header links to no other site
    login_form = SignInForm

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the form, or check the password that it sends (`SignInForm`)."""
        try:
            return super().login(request, extra_context)
        except SignInRefused as refused:
            return _refused(refused)

    def password_change(  # type: ignore[override]  # a redirect is no TemplateResponse
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        """Show the form, or change the own password (`OwnPasswordView`)."""
        view = OwnPasswordView.as_view(
            success_url=reverse("admin:password_change_done", current_app=self.name),
            extra_context={**self.each_context(request), **(extra_context or {})},
        )
        request.current_app = self.name
        try:
            return view(request)
        except SignInRefused as refused:
            return _refused(refused)

    def autocomplete_view(self, request: HttpRequest) -> HttpResponse:
        """Search for the choices of a foreign key; a term that the database refuses is a 400."""
        check_lengths(request)
        with refusing_bad_values():
            return super().autocomplete_view(request)


def _refused(refused: SignInRefused) -> HttpResponse:
    """A page that costs little to render: an attacker can request many."""
    limited = isinstance(refused, TooManyFailures)
    content = render_to_string(
        "administration/sign_in_refused.html", {"limited": limited, "retry_after": refused.retry_after}
    )
    headers = {"Retry-After": str(refused.retry_after)}
    return HttpResponse(content, status=HTTPStatus.TOO_MANY_REQUESTS, headers=headers)
