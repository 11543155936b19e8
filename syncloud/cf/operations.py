"""The CloudFormation client: change sets, events and deletion, with error translation and polling.

This module knows nothing of syncloud's template; the decisions are in `stack` and `guard`.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from botocore.exceptions import ClientError

from ..aws.error_mapping import aws_errors, translate
from ..errors import BusyError, ConfigurationError, PermissionRefused, SyncloudError, Unavailable

Client: TypeAlias = Any
"""A boto3 client. boto3 creates the methods at run time, so no static type exists."""

Description: TypeAlias = Mapping[str, Any]
"""A stack as returned by DescribeStacks."""

Event: TypeAlias = Mapping[str, Any]
"""A row of DescribeStackEvents."""

OUR_NAMES = "syncloud-"
"""Prefix of our change sets' names."""

PLANNED = "REVIEW_IN_PROGRESS"
"""The status of a stack with only a first change set. Despite the name, no operation runs."""

_GONE = "DELETE_COMPLETE"
_UNCHANGED = re.compile(r"didn't contain changes|no updates are to be performed", re.IGNORECASE)
_REFUSED = re.compile(r"access ?denied|not authorized|forbidden", re.IGNORECASE)
_CONTENTION = re.compile(
    r"_IN_PROGRESS (state|status)|InvalidChangeSetStatus|OperationInProgress|AlreadyExistsException"
)
_AGAIN = "run the same command again, which waits for the end"


@dataclass(frozen=True, slots=True)
class Change:
    """The effect of a change set on one resource, in CloudFormation's terms."""

    action: str
    resource_type: str
    logical_id: str
    replacement: str

    def __str__(self) -> str:
        text = f"{self.action} {self.resource_type} {self.logical_id}"
        is_replaced = self.replacement not in ("", "False")
        return f"{text} (replacement: {self.replacement})" if is_replaced else text


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """A plan that CloudFormation keeps until execution or deletion.

    `creating`: the stack is new.
    """

    id: str
    stack_id: str
    creating: bool
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an operation.

    The stack's status, the first failure, and the (type, id) of each resource kept on deletion.
    """

    status: str
    failure: str
    kept: tuple[tuple[str, str], ...] = ()


class Operations:
    """CloudFormation operations through a boto3 client.

    `report` gets one line per resource event. `poll` is the polling interval and `patience` the
    timeout, both in seconds; after the timeout, the operation itself continues.

    Every method raises Unavailable, CredentialsError or PermissionRefused for AWS errors, and
    BusyError if another operation holds the stack. A ValidationError of AWS becomes
    ConfigurationError.
    """

    def __init__(
        self, client: Client, *, report: Callable[[str], None], poll: float, patience: float
    ) -> None:
        self._client = client
        self._report = report
        self._poll = poll
        self._patience = patience

    # Stacks

    def describe(self, stack: str) -> Description | None:
        """The stack by name or id, or None if missing. The id also finds a deleted stack."""
        try:
            with asking(f"looking at the stack {stack}"):
                described: Description = self._client.describe_stacks(StackName=stack)["Stacks"][0]
        except SyncloudError as error:
            if _is_of_a_missing_stack(error):
                return None
            raise
        return described

    def buckets(self, stack_id: str) -> list[str]:
        """The buckets that live in the stack, whatever its template."""
        with asking("listing the stack's resources"):
            pages = self._pages("list_stack_resources", StackName=stack_id)
            rows = [row for page in pages for row in page["StackResourceSummaries"]]
        return [row["PhysicalResourceId"] for row in rows if _is_live_bucket(row)]

    def delete(self, stack: Description) -> Outcome:
        """Delete a stack and wait for its end.

        Raises ConfigurationError (or PermissionRefused) if a resource resists deletion.
        """
        stack_id = stack["StackId"]
        known = self._known_events(stack_id)
        with asking("deleting the stack"):
            self._client.delete_stack(StackName=stack["StackName"])
        outcome = self._follow(stack_id, known)
        if outcome.status != _GONE:
            text = f"the stack could not be deleted: {outcome.failure or outcome.status}"
            raise failed(text, hint="detach attached policies; then run the same command again")
        return outcome

    def delete_planned(self, stack: Description) -> None:
        """Delete a stack that has only a plan; such a deletion produces no events to follow."""
        with asking("deleting the empty stack"):
            self._client.delete_stack(StackName=stack["StackName"])
        for _ in self._beats("the deletion of the empty stack"):
            left = self.describe(stack["StackId"])
            if left is None or left["StackStatus"] == _GONE:
                return

    def await_quiet(self, stack_id: str) -> Description | None:
        """Wait for the end of a running operation, started by another user or an interrupted run.

        Returns None if the stack no longer exists.
        """
        known = self._known_events(stack_id)
        for _ in self._beats("the operation on the stack"):
            stack = self.describe(stack_id)
            self._fresh_events(stack_id, known)
            if stack is None or stack["StackStatus"] == _GONE:
                return None
            if not running(stack["StackStatus"]):
                return stack
        raise AssertionError("the last beat raises")

    # Change sets

    def template_parameters(self, template: str) -> set[str]:
        """The names of a template's parameters.

        The call also proves that CloudFormation can parse the template.
        """
        with asking("reading the template"):
            rows = self._client.get_template_summary(TemplateBody=template).get("Parameters", ())
            return {row["ParameterKey"] for row in rows}

    def create_change_set(
        self,
        stack: str,
        template: str,
        *,
        creating: bool,
        values: Mapping[str, str],
        keep: set[str],
    ) -> ChangeSet:
        """Start a change set with the parameters `values`; those in `keep` keep their value."""
        with asking("creating a change set"):
            answer = self._client.create_change_set(
                StackName=stack,
                ChangeSetName=_new_name(),
                ChangeSetType="CREATE" if creating else "UPDATE",
                TemplateBody=template,
                Parameters=list(_parameters(values, keep)),
                Capabilities=["CAPABILITY_IAM"],
            )
        return ChangeSet(answer["Id"], answer["StackId"], creating)

    def await_changes(self, change_set: ChangeSet) -> tuple[Change, ...]:
        """Wait for a change set and return its changes.

        An empty result means no change, which CloudFormation reports as a failure.
        """
        for _ in self._beats("the creation of the change set"):
            with asking("reading the change set"):
                pages = list(self._pages("describe_change_set", ChangeSetName=change_set.id))
            status, reason = pages[0]["Status"], pages[0].get("StatusReason", "")
            if status == "FAILED" and not _UNCHANGED.search(reason):
                hint = "nothing was changed; fix the cause and try again"
                raise failed(f"the change set failed: {reason}", hint=hint)
            if status in ("CREATE_COMPLETE", "FAILED"):
                return tuple(_changes(pages))
        raise AssertionError("the last beat raises")

    def change_set_names(self, stack: Description) -> list[str]:
        with asking("listing the change sets"):
            pages = self._pages("list_change_sets", StackName=stack["StackName"])
            return [row["ChangeSetName"] for page in pages for row in page.get("Summaries", ())]

    def delete_change_set(self, change_set: ChangeSet) -> None:
        # An emulator omits an empty element of the answer, which breaks botocore's parser. The
        # deletion has succeeded by then.
        with asking("deleting the change set"), contextlib.suppress(KeyError):
            self._client.delete_change_set(ChangeSetName=change_set.id)

    def execute(self, change_set: ChangeSet) -> Outcome:
        """Execute a change set and wait for its end, success or failure."""
        known = self._known_events(change_set.stack_id)
        with asking("executing the change set"):
            self._client.execute_change_set(ChangeSetName=change_set.id)
        return self._follow(change_set.stack_id, known)

    # Events

    def _follow(self, stack_id: str, known: set[str]) -> Outcome:
        """Wait for the event that shows the stack itself at rest.

        The stack's status alone is not enough, because the status may still be the previous one.
        """
        seen: list[Event] = []
        for _ in self._beats("the operation on the stack"):
            fresh = self._fresh_events(stack_id, known)
            seen += fresh
            if ended := _status_at_rest(fresh, stack_id):
                return Outcome(ended, _first_failure(seen, stack_id), tuple(_kept(seen)))
        raise AssertionError("the last beat raises")

    def _known_events(self, stack_id: str) -> set[str]:
        with asking("reading the stack's events"):
            pages = self._pages("describe_stack_events", StackName=stack_id)
            return {event["EventId"] for page in pages for event in page["StackEvents"]}

    def _fresh_events(self, stack_id: str, known: set[str]) -> list[Event]:
        """Report the events that are not in `known`, oldest first, and add them to `known`."""
        fresh: list[Event] = []
        with asking("reading the stack's events"):
            for page in self._pages("describe_stack_events", StackName=stack_id):
                new = [event for event in page["StackEvents"] if event["EventId"] not in known]
                if not new:
                    break  # newest first, so older pages are known too
                fresh += new
        fresh.sort(key=lambda event: event["Timestamp"])
        for event in fresh:
            known.add(event["EventId"])
            self._report(_line(event))
        return fresh

    def _pages(self, operation: str, **request: str) -> Iterable[Mapping[str, Any]]:
        pages: Iterable[Mapping[str, Any]]
        pages = self._client.get_paginator(operation).paginate(**request)
        return pages

    def _beats(self, operation: str) -> Iterator[None]:
        """A polling loop: yields every `poll` seconds, raises Unavailable after `patience`."""
        end = time.monotonic() + self._patience
        while time.monotonic() < end:
            yield
            time.sleep(self._poll)
        minutes = f"{self._patience / 60:.0f} minutes"
        hint = f"CloudFormation continues; {_AGAIN}"
        raise Unavailable(f"{operation} has not ended within {minutes}", hint=hint)


@contextlib.contextmanager
def asking(request: str) -> Iterator[None]:
    """The error boundary: translates boto3's exceptions into our errors."""
    try:
        yield
    except aws_errors() as error:
        answer = error.response["Error"] if isinstance(error, ClientError) else {}
        text = f"{request}: {answer.get('Message', error)}"
        if answer and _CONTENTION.search(str(error)):
            raise BusyError(text, hint=f"another user changes the stack; {_AGAIN}") from error
        if answer.get("Code") == "ValidationError":
            hint = "check --bucket, --prefix and --stack-name"
            raise ConfigurationError(text, hint=hint) from error
        raise translate(error, request) from error


def failed(message: str, *, hint: str) -> SyncloudError:
    """PermissionRefused if the reason in `message` shows a denial, else ConfigurationError."""
    kind = PermissionRefused if _REFUSED.search(message) else ConfigurationError
    return kind(message, hint=hint)


def running(status: str) -> bool:
    return status.endswith("_IN_PROGRESS") and status != PLANNED


def _is_of_a_missing_stack(error: SyncloudError) -> bool:
    """Whether the message is "Stack with id NAME does not exist".

    The code is that of any invalid value, so the message decides.
    """
    cause = error.__cause__
    message = str(cause).partition("(ValidationError)")[2]
    return isinstance(cause, ClientError) and "does not exist" in message


def _is_live_bucket(row: Mapping[str, Any]) -> bool:
    is_deleted = row["ResourceStatus"] in (_GONE, "DELETE_SKIPPED")
    is_bucket = row["ResourceType"] == "AWS::S3::Bucket"
    return is_bucket and not is_deleted and bool(row.get("PhysicalResourceId"))


def _new_name() -> str:
    return f"{OUR_NAMES}{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def _parameters(values: Mapping[str, str], keep: set[str]) -> Iterator[dict[str, object]]:
    for key, value in values.items():
        yield {"ParameterKey": key, "ParameterValue": value}
    for key in sorted(keep):
        yield {"ParameterKey": key, "UsePreviousValue": True}


def _changes(pages: Iterable[Mapping[str, Any]]) -> Iterator[Change]:
    for row in (row for page in pages for row in page.get("Changes", ())):
        if (one := row.get("ResourceChange")) is not None:
            replacement = one.get("Replacement", "")
            yield Change(one["Action"], one["ResourceType"], one["LogicalResourceId"], replacement)


def _status_at_rest(events: Iterable[Event], stack_id: str) -> str:
    """The last status of the stack itself, if its operation has ended; otherwise empty."""
    own = (one["ResourceStatus"] for one in events if one.get("PhysicalResourceId") == stack_id)
    ended = [status for status in own if not running(status)]
    return ended[-1] if ended else ""


def _first_failure(events: Iterable[Event], stack_id: str) -> str:
    others = (event for event in events if event.get("PhysicalResourceId") != stack_id)
    found = (_failure(event) for event in others if event["ResourceStatus"].endswith("_FAILED"))
    return next(filter(None, found), "")


def _failure(event: Event) -> str:
    """The failure of a resource; empty if the failure of another one cancelled this resource."""
    reason = event.get("ResourceStatusReason", "")
    text = f"{event['ResourceType']} {event['LogicalResourceId']}: {reason}"
    return "" if "cancelled" in reason.lower() else text


def _kept(events: Iterable[Event]) -> Iterator[tuple[str, str]]:
    for event in events:
        if event["ResourceStatus"] == "DELETE_SKIPPED":
            yield event["ResourceType"], event["PhysicalResourceId"]


def _line(event: Event) -> str:
    line = f"{event['ResourceStatus']} {event['ResourceType']} {event['LogicalResourceId']}"
    reason = event.get("ResourceStatusReason", "")
    return f"{line}: {reason}" if reason and event["ResourceStatus"].endswith("_FAILED") else line
