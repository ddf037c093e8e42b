"""The base class of the views of resources."""

from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.db.models import Model, QuerySet
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from registry_control.rest.identifiers import id_of
from registry_control.rest.pagination import page_of


class ResourceView(APIView):
    """A view of one kind of resource: renders rows and pages of rows."""

    resource: ClassVar[str]  # as errors name it; the field of a page has this name in the plural
    serializer: ClassVar[type[Serializer[Any]]]
    page_serializer: ClassVar[type[Serializer[Any]]]

    def context_for(self, rows: Sequence[Any]) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """What the serializer needs besides the rows, selected for all of them at once."""
        return {}

    def parse_id(self, text: str) -> UUID:
        """Parse the id of a resource in the path.

        Raises:
            NotFound: the id is malformed, so no resource has it.
        """
        return id_of(self.resource, text)

    def respond(self, row: Model, *, context: dict[str, Any] | None = None) -> Response:
        """Render one row; `context` replaces the result of `context_for`."""
        context = self.context_for([row]) if context is None else context
        return Response(self.serializer(row, context=context).data)

    def respond_with_page(
        self,
        rows: QuerySet[Any],
        *,
        query: dict[str, Any],
        shown: QuerySet[Any] | None = None,
        total: int | None = None,
    ) -> Response:
        """Render the page that the query parameters request; the arguments are those of `page_of`."""
        page, total = page_of(rows, query=query, shown=shown, total=total)
        content = {f"{self.resource}s": page, "total_count": total}
        return Response(self.page_serializer(content, context=self.context_for(page)).data)
