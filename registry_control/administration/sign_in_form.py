"""The form of the sign-in page."""

from typing import Any

from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError

from registry_control.administration import sign_in


class SignInForm(AdminAuthenticationForm):
    """Django's form, with every attempt counted, audited and logged."""

    def clean(self) -> dict[str, Any]:
        """Check user name and password.

        Raises:
            SignInRefused: without a check; the site renders it.
        """
        username, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if self.request is None or not username or not password:
            return super().clean()
        attempt = sign_in.attempt_of(self.request, username)
        with sign_in.checking_password(attempt):
            try:
                cleaned: dict[str, Any] = super().clean()
            except ValidationError:
                sign_in.refuse(attempt, "wrong user name or password")
                raise
        sign_in.succeed(attempt, self.get_user())
        return cleaned
