"""A page that asks before an action deletes something for good. It works without scripts."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

CONFIRMED: Final = "confirmed"
_SHOWN: Final = 50  # rows
_OF_ACTIONS: Final = ("action", "select_across", ACTION_CHECKBOX_NAME)


def is_confirmed(request: HttpRequest) -> bool:
    """Whether the request comes from that page."""
    return CONFIRMED in request.POST


def ask(
    request: HttpRequest,
    context: dict[str, Any],
    *,
    question: str,
    button: str,
    back: str,
    rows: Sequence[str] = (),
    number: int | None = None,
) -> TemplateResponse:
    """The page. Its form sends the same request again, confirmed.

    Args:
        request: the request that is to be confirmed.
        context: `each_context` of the site, and `opts` of the model.
        question: what happens, as a question.
        button: what the button says.
        back: the URL of the link that leaves everything as it is.
        rows: names of what is affected.
        number: how many there are, if `rows` has not all of them.
    """
    more = (len(rows) if number is None else number) - len(rows)
    sent = [(name, value) for name in _OF_ACTIONS for value in request.POST.getlist(name)]
    shown = {"title": button, "question": question, "rows": rows, "more": more, "button": button}
    page = {**context, **shown, "back": back, "sent": sent, "confirmed": CONFIRMED}
    return TemplateResponse(request, "administration/confirm.html", page)


def some(queryset: QuerySet[Any]) -> Iterable[Any]:
    """As many rows as the page shows."""
    return queryset[:_SHOWN]
