"""Reading bodies."""

from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser


class PlainJsonParser(JSONParser):
    """JSON as deep as Python reads it; the size is limited by Django (DATA_UPLOAD_MAX_MEMORY_SIZE)."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever JSON may be; serializers check it
        """Read a body.

        Raises:
            ParseError: it is not JSON, or nested without end.
        """
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError as error:
            raise ParseError("JSON parse error - nested too deep") from error
