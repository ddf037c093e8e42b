"""The page on which a signed-in administrator changes the own password."""

from typing import Any

from django.contrib.admin.forms import AdminPasswordChangeForm
from django.contrib.auth import get_user_model, update_session_auth_hash
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.views import PasswordChangeView
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404

from registry_control.administration import sign_in
from registry_control.administration.base import actor_of, target_of
from registry_control.audit.services import record


class OwnPasswordView(PasswordChangeView):
    """Django's view: a wrong old password counts as a failed sign-in, and a new password is audited."""

    form_class = AdminPasswordChangeForm

    def post(self, request: HttpRequest, *_: Any, **__: Any) -> HttpResponse:
        """Check the old password and set the new one.

        Raises:
            SignInRefused: without a check; the site renders it.
        """
        attempt = sign_in.attempt_of(request, request.user.get_username())
        # The attempt is counted outside the transaction: a rollback must not undo the count.
        with sign_in.checking_password(attempt):
            with transaction.atomic():
                form = self.get_form()
                response = self.form_valid(form) if form.is_valid() else self.form_invalid(form)
            if form.has_error("old_password", "password_incorrect"):
                sign_in.refuse(attempt, "wrong old password")
            else:
                sign_in.uncount(attempt)
        return response

    def get_form_kwargs(self) -> dict[str, Any]:
        """Check a submitted old password against the locked row: a superuser may just have replaced it."""
        options = super().get_form_kwargs()
        if "data" in options:
            users = get_user_model()._default_manager.select_for_update()
            options["user"] = get_object_or_404(users, pk=self.request.user.pk)
        return options

    def form_valid(self, form: PasswordChangeForm) -> HttpResponse:
        """Save and audit the new password; the user's other sessions end, this one continues."""
        user = form.save(commit=False)
        user.save(update_fields=["password"])
        update_session_auth_hash(self.request, user)
        record(actor=actor_of(self.request), verb="user.password", target=target_of(user))
        return HttpResponseRedirect(self.get_success_url())
