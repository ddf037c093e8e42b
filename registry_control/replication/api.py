"""The REST API of replication; selectors and services make all decisions."""

from http import HTTPStatus
from typing import Final

from rest_framework.request import Request
from rest_framework.response import Response

from registry_control.access.authentication import principal_of
from registry_control.replication import selectors
from registry_control.replication.serializers import (
    CheckedSerializer,
    CreateRuleSerializer,
    CreateTargetSerializer,
    ExecutionListSerializer,
    ExecutionQuery,
    ExecutionSerializer,
    RuleListSerializer,
    RuleQuery,
    RuleSerializer,
    TargetListSerializer,
    TargetQuery,
    TargetSerializer,
    UpdateRuleSerializer,
    UpdateTargetSerializer,
)
from registry_control.replication.services import executions, rules, targets
from registry_control.rest.identifiers import id_of
from registry_control.rest.openapi import LIST_ERRORS, id_parameter, operation
from registry_control.rest.serializers import NoQuery, validated
from registry_control.rest.views import ResourceView

_TARGETS: Final = "replication targets"
_RULES: Final = "replication rules"
_EXECUTIONS: Final = "replication executions"
_TARGET_ID: Final = id_parameter("target_id")
_RULE_ID: Final = id_parameter("rule_id")
_EXECUTION_ID: Final = id_parameter("execution_id")
_ERRORS: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)


class _TargetView(ResourceView):
    resource = "target"
    serializer = TargetSerializer
    page_serializer = TargetListSerializer


class _RuleView(ResourceView):
    resource = "rule"
    serializer = RuleSerializer
    page_serializer = RuleListSerializer


class _ExecutionView(ResourceView):
    resource = "execution"
    serializer = ExecutionSerializer
    page_serializer = ExecutionListSerializer


class TargetList(_TargetView):
    """The other registries of the caller's organization."""

    @operation(
        "ListReplicationTargets",
        tag=_TARGETS,
        response=TargetListSerializer,
        parameters=[TargetQuery],
        errors=LIST_ERRORS,
    )
    def get(self, request: Request, region: str) -> Response:
        """List the targets; empty without full access to the organization."""
        query = validated(TargetQuery, request.query_params)
        found = selectors.targets_of(
            principal_of(request), name=query.get("name"), organization_id=query.get("organization_id")
        )
        return self.respond_with_page(found, query=query)

    @operation(
        "CreateReplicationTarget",
        tag=_TARGETS,
        body=CreateTargetSerializer,
        example={
            "name": "mirror",
            "url": "https://registry.example.com",
            "username": "robot",
            "password": "secret",
        },
        response=TargetSerializer,
        errors=[HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN],
    )
    def post(self, request: Request, region: str) -> Response:
        """Create a target. The password is stored encrypted and never returned."""
        validated(NoQuery, request.query_params)
        body = validated(CreateTargetSerializer, request.data)
        return self.respond(targets.create(principal=principal_of(request), **body))


class TargetDetail(_TargetView):
    """One target by its id."""

    @operation(
        "GetReplicationTarget",
        tag=_TARGETS,
        response=TargetSerializer,
        parameters=[_TARGET_ID],
        errors=[HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND],
    )
    def get(self, request: Request, region: str, target_id: str) -> Response:
        """Show a target."""
        validated(NoQuery, request.query_params)
        return self.respond(selectors.get_target(principal_of(request), self.parse_id(target_id)))

    @operation(
        "UpdateReplicationTarget",
        tag=_TARGETS,
        body=UpdateTargetSerializer,
        example={"password": "another secret"},
        response=TargetSerializer,
        parameters=[_TARGET_ID],
        errors=[HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND],
    )
    def patch(self, request: Request, region: str, target_id: str) -> Response:
        """Change a target; running executions use the changes from their next connection on."""
        validated(NoQuery, request.query_params)
        body = validated(UpdateTargetSerializer, request.data)
        changes: targets.TargetChanges = {name: value for name, value in body.items() if value is not None}  # type: ignore[assignment]
        return self.respond(
            targets.update(
                principal=principal_of(request), target_id=self.parse_id(target_id), changes=changes
            )
        )

    @operation(
        "DeleteReplicationTarget",
        tag=_TARGETS,
        response=TargetSerializer,
        parameters=[_TARGET_ID],
        errors=[HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT],
    )
    def delete(self, request: Request, region: str, target_id: str) -> Response:
        """Delete a target that no rule uses."""
        validated(NoQuery, request.query_params)
        return self.respond(
            targets.delete(principal=principal_of(request), target_id=self.parse_id(target_id))
        )


class TargetCheck(_TargetView):
    """A check of one target."""

    @operation(
        "CheckReplicationTarget",
        tag=_TARGETS,
        response=CheckedSerializer,
        parameters=[_TARGET_ID],
        errors=[HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND],
    )
    def post(self, request: Request, region: str, target_id: str) -> Response:
        """Connect to the target and sign in; nothing is changed there."""
        validated(NoQuery, request.query_params)
        checked = targets.check(principal=principal_of(request), target_id=self.parse_id(target_id))
        return Response(CheckedSerializer(checked).data)


class RuleList(_RuleView):
    """The rules of the namespaces that the caller administers."""

    @operation(
        "ListReplicationRules",
        tag=_RULES,
        response=RuleListSerializer,
        parameters=[RuleQuery],
        errors=LIST_ERRORS,
    )
    def get(self, request: Request, region: str) -> Response:
        """List the rules of all namespaces that the API key administers."""
        query = validated(RuleQuery, request.query_params)
        found = selectors.rules_of(
            principal_of(request),
            name=query.get("name"),
            namespace_id=query.get("namespace_id"),
            target_id=query.get("target_id"),
        )
        return self.respond_with_page(found, query=query)

    @operation(
        "CreateReplicationRule",
        tag=_RULES,
        body=CreateRuleSerializer,
        example={
            "name": "mirror everything",
            "direction": "push",
            "target_id": "0b5a6c1e-4d2f-4c3b-9a8e-7f6d5c4b3a29",
            "namespace_id": "1c6b7d2f-5e3a-4d4c-8b9f-8a7e6d5c4b3a",
            "repositories": ["*"],
            "tags": "*",
            "on_push": True,
        },
        response=RuleSerializer,
        errors=_ERRORS,
    )
    def post(self, request: Request, region: str) -> Response:
        """Create a rule. It runs on pushes, by a schedule, and when it is run by hand."""
        validated(NoQuery, request.query_params)
        body = validated(CreateRuleSerializer, request.data)
        fields = rules.RuleFields(
            name=body["name"],
            repositories=tuple(body["repositories"]),
            tags=body["tags"],
            destination=body["destination"] or rules.DEFAULT_DESTINATION[body["direction"]],
            on_push=body["on_push"],
            cron=body["cron"] or "",
            enabled=body["enabled"],
        )
        return self.respond(
            rules.create(
                principal=principal_of(request),
                direction=body["direction"],
                namespace_id=body["namespace_id"],
                target_id=body["target_id"],
                fields=fields,
            )
        )


class RuleDetail(_RuleView):
    """One rule by its id."""

    @operation(
        "GetReplicationRule",
        tag=_RULES,
        response=RuleSerializer,
        parameters=[_RULE_ID],
        errors=_ERRORS,
    )
    def get(self, request: Request, region: str, rule_id: str) -> Response:
        """Show a rule."""
        validated(NoQuery, request.query_params)
        return self.respond(selectors.get_rule(principal_of(request), self.parse_id(rule_id), action="read"))

    @operation(
        "UpdateReplicationRule",
        tag=_RULES,
        body=UpdateRuleSerializer,
        example={"enabled": False},
        response=RuleSerializer,
        parameters=[_RULE_ID],
        errors=_ERRORS,
    )
    def patch(self, request: Request, region: str, rule_id: str) -> Response:
        """Change a rule. Direction and namespace cannot change; a running execution continues as it began."""
        validated(NoQuery, request.query_params)
        body = validated(UpdateRuleSerializer, request.data)
        target_id = body.pop("target_id", None)
        changes = {name: value for name, value in body.items() if value is not None}
        if "repositories" in changes:
            changes["repositories"] = tuple(changes["repositories"])
        if "cron" in body:
            changes["cron"] = body["cron"] or ""
        return self.respond(
            rules.update(
                principal=principal_of(request),
                rule_id=self.parse_id(rule_id),
                changes=changes,
                target_id=target_id,
            )
        )

    @operation(
        "DeleteReplicationRule",
        tag=_RULES,
        response=RuleSerializer,
        parameters=[_RULE_ID],
        errors=_ERRORS,
    )
    def delete(self, request: Request, region: str, rule_id: str) -> Response:
        """Delete a rule with its executions; what was replicated stays."""
        validated(NoQuery, request.query_params)
        return self.respond(rules.delete(principal=principal_of(request), rule_id=self.parse_id(rule_id)))


class RuleRun(_ExecutionView):
    """Running one rule by hand."""

    @operation(
        "RunReplicationRule",
        tag=_RULES,
        response=ExecutionSerializer,
        parameters=[_RULE_ID],
        errors=_ERRORS,
    )
    def post(self, request: Request, region: str, rule_id: str) -> Response:
        """Start an execution of the whole rule; if one waits to start already, it is returned instead."""
        validated(NoQuery, request.query_params)
        return self.respond(rules.run(principal=principal_of(request), rule_id=id_of("rule", rule_id)))


class ExecutionList(_ExecutionView):
    """The executions of the rules that the caller may see."""

    @operation(
        "ListReplicationExecutions",
        tag=_EXECUTIONS,
        response=ExecutionListSerializer,
        parameters=[ExecutionQuery],
        errors=LIST_ERRORS,
    )
    def get(self, request: Request, region: str) -> Response:
        """List executions; they are kept for 30 days after their end."""
        query = validated(ExecutionQuery, request.query_params)
        found = selectors.executions_of(
            principal_of(request), rule_id=query.get("rule_id"), status=query.get("status")
        )
        return self.respond_with_page(found, query=query)


class ExecutionDetail(_ExecutionView):
    """One execution by its id."""

    @operation(
        "GetReplicationExecution",
        tag=_EXECUTIONS,
        response=ExecutionSerializer,
        parameters=[_EXECUTION_ID],
        errors=_ERRORS,
    )
    def get(self, request: Request, region: str, execution_id: str) -> Response:
        """Show an execution with its progress and errors."""
        validated(NoQuery, request.query_params)
        return self.respond(
            selectors.get_execution(principal_of(request), self.parse_id(execution_id), action="read")
        )


class ExecutionCancel(_ExecutionView):
    """Cancelling one execution."""

    @operation(
        "CancelReplicationExecution",
        tag=_EXECUTIONS,
        response=ExecutionSerializer,
        parameters=[_EXECUTION_ID],
        errors=_ERRORS,
    )
    def post(self, request: Request, region: str, execution_id: str) -> Response:
        """End an execution within a second; what was replicated stays. A finished one does not change."""
        validated(NoQuery, request.query_params)
        return self.respond(
            executions.cancel(principal=principal_of(request), execution_id=self.parse_id(execution_id))
        )
