"""Forms that others may overtake: a row changes while somebody has its page open."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.db import models
from django.utils.safestring import SafeString

if TYPE_CHECKING:
    _Form = forms.ModelForm[Any]
else:
    _Form = forms.ModelForm  # generic for the type checker only


class _ShownField(forms.BoundField):
    """Keeps what was shown first when the form comes again with its errors."""

    def as_hidden(self, attrs: dict[str, Any] | None = None, **options: bool) -> SafeString:
        """Django forgets it for fields of several inputs, and takes what was typed instead."""
        if not (options.get("only_initial") and self.form.is_bound):
            return super().as_hidden(attrs, **options)
        widget = self.field.hidden_widget()
        value = widget.value_from_datadict(self.form.data, self.form.files, self.html_initial_name)
        return widget.render(self.html_initial_name, value, {"id": self.html_initial_id})


class OptimisticForm(_Form):
    """Brings back what it showed: changed is what the person changed, all else stays as it is by now.

    Compared with the row alone, a checkbox on a page that is minutes old would undo what was done since.
    """

    bound_field_class = _ShownField

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Those that a formset adds to each form come later, and are no business of this one.
        self._shown = () if self.instance._state.adding else tuple(self.fields)
        if not self.is_bound or self._brings_shown():
            for name in self._shown:
                self.fields[name].show_hidden_initial = not self.fields[name].disabled

    def _brings_shown(self) -> bool:
        """Whether it comes from the page; a script may post fields alone, compared with the row then."""
        return any(name.startswith(self.add_initial_prefix("")) for name in self.data)

    def clean(self) -> dict[str, Any]:
        """Go by the present values of what the person did not change, in every rule that follows."""
        cleaned: dict[str, Any] = super().clean() or {}
        for name in cleaned.keys() & (set(self._shown) - set(self.changed_data)):
            present = getattr(self.instance, name)
            cleaned[name] = present.all() if isinstance(present, models.Manager) else present
        return cleaned

    def save(self, commit: bool = True) -> models.Model:
        """Write what was changed and nothing else; never make a row anew that is gone."""
        makes = self.instance._state.adding
        saved: models.Model = super().save(commit=commit and makes)
        if commit and not makes:
            saved.save(update_fields=columns_changed(self))
            self.save_m2m()
        return saved


def columns_changed(form: _Form) -> list[str]:
    """The fields that a changing save has to write: what is changed and has a column of the row."""
    columns = {field.name for field in form.instance._meta.concrete_fields}
    return [name for name in form.changed_data if name in columns]
