"""The parser of request bodies."""

import json
from collections.abc import Mapping
from typing import IO, Any, Final

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser
from rest_framework.request import Request

from registry_control.common.errors import InvalidArgument

_LONE_SURROGATE: Final = (
    "a string has half of a surrogate pair, which is no text: write the characters U+D800 to U+DFFF in pairs"
)


class PlainJsonParser(JSONParser):
    """Parses JSON; what is nested too deep, or no Unicode, is a client error. Django limits the size."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - any JSON value; serializers validate it
        """Parse a body.

        Raises:
            ParseError: it is not JSON, or nested too deep.
            InvalidArgument: a string in it has a lone surrogate; a response that repeats it would fail.
        """
        try:
            found = super().parse(stream, media_type, parser_context)
            if not _is_unicode(found):
                raise InvalidArgument(_argument_of_surrogate(found), _LONE_SURROGATE)
        except RecursionError as error:
            raise ParseError("JSON parse error - nested too deep") from error
        return found


def _is_unicode(value: object) -> bool:
    """Whether all strings of a JSON value, also names of fields, can be encoded."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _argument_of_surrogate(document: object) -> str:
    """The field with a lone surrogate in its value; `body` if its name has one, too."""
    fields = document.items() if isinstance(document, Mapping) else ()
    return next((name for name, value in fields if _is_unicode(name) and not _is_unicode(value)), "body")


def has_body(request: Request) -> bool:
    """Whether a request has a body; `request.data` of one without is the same as of an empty JSON object."""
    return request.stream is not None
