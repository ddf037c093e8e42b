"""Optimistic forms: the row may change while an administrator has its page open."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.db import models
from django.utils.safestring import SafeString

if TYPE_CHECKING:
    _Form = forms.ModelForm[Any]
else:
    _Form = forms.ModelForm  # generic for the type checker only


class _ShownField(forms.BoundField):
    """A field that keeps its first initial value when the form is shown again with its errors."""

    def as_hidden(self, attrs: dict[str, Any] | None = None, **options: bool) -> SafeString:
        """Render the initial value; for fields of several inputs Django would render the entered one."""
        if not (options.get("only_initial") and self.form.is_bound):
            return super().as_hidden(attrs, **options)
        widget = self.field.hidden_widget()
        value = widget.value_from_datadict(self.form.data, self.form.files, self.html_initial_name)
        return widget.render(self.html_initial_name, value, {"id": self.html_initial_id})


class OptimisticForm(_Form):
    """An optimistic form: hidden initial values; only fields that the administrator edited are written.

    Compared with the current row alone, an old page's checkbox would undo changes made since it was opened.
    """

    bound_field_class = _ShownField

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Only the form's own fields: a formset adds more of them later.
        self._shown = () if self.instance._state.adding else tuple(self.fields)
        if not self.is_bound or self._has_initial_values():
            for name in self._shown:
                self.fields[name].show_hidden_initial = not self.fields[name].disabled

    def _has_initial_values(self) -> bool:
        """Whether the page sent hidden initial values; a script may omit them: compare with the row then."""
        return any(name.startswith(self.add_initial_prefix("")) for name in self.data)

    def clean(self) -> dict[str, Any]:
        """Use the row's current values for all fields that were not edited, in every rule that follows."""
        cleaned: dict[str, Any] = super().clean() or {}
        for name in cleaned.keys() & (set(self._shown) - set(self.changed_data)):
            present = getattr(self.instance, name)
            cleaned[name] = present.all() if isinstance(present, models.Manager) else present
        return cleaned

    def save(self, commit: bool = True) -> models.Model:
        """Write only the edited fields; never insert a row again that was deleted meanwhile."""
        makes = self.instance._state.adding
        saved: models.Model = super().save(commit=commit and makes)
        if commit and not makes:
            saved.save(update_fields=columns_changed(self))
            self.save_m2m()
        return saved


def columns_changed(form: _Form) -> list[str]:
    """The edited fields that are columns of the row."""
    columns = {field.name for field in form.instance._meta.concrete_fields}
    return [name for name in form.changed_data if name in columns]
