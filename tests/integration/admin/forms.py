"""Pages of the administration, and their forms as a browser submits them."""

from html.parser import HTMLParser
from typing import Any

from django.db.models import Model
from django.urls import reverse


def url(model: type[Model], page: str, *arguments: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=arguments)


class _Fields(HTMLParser):
    """The values of the fields of a page by name, without buttons."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self._name = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("textarea", "select"):
            self._name = given.get("name", "")
            if tag == "textarea":
                self.found[self._name] = [""]
        elif tag == "option" and "selected" in given:
            self.found.setdefault(self._name, []).append(given["value"])
        elif tag == "input" and given.get("name") and _is_sent(given):
            self.found.setdefault(given["name"], []).append(
                given.get("value", "on" if given["type"] == "checkbox" else "")
            )

    def handle_data(self, data: str) -> None:
        if self.lasttag == "textarea" and self._name:
            self.found[self._name] = [(self.found[self._name][0] + data).removeprefix("\n").rstrip("\n")]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("textarea", "select"):
            self._name = ""


def _is_sent(given: dict[str, str]) -> bool:
    return given["type"] != "submit" and (given["type"] != "checkbox" or "checked" in given)


def fields(page: bytes) -> dict[str, list[str]]:
    """What a browser would submit if the page's button were pressed."""
    parser = _Fields()
    parser.feed(page.decode())
    return parser.found
