"""The CloudFormation client: change sets, events and deletion, with error translation and polling.

This module knows nothing of syncloud's template; the decisions are in `stack.py`.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
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

OUR_NAMES = "syncloud-"
"""Prefix of our change sets' names."""

PLANNED = "REVIEW_IN_PROGRESS"
"""The status of a stack with only a first change set. Despite the name, no operation is in
progress.
"""

_UNCHANGED = re.compile(r"didn't contain changes|no updates are to be performed", re.IGNORECASE)
_REFUSED = re.compile(r"access ?denied|not authorized|forbidden", re.IGNORECASE)
_CONTENTION = re.compile(
    r"_IN_PROGRESS (state|status)|InvalidChangeSetStatus|OperationInProgress|AlreadyExistsException"
)


@dataclass(frozen=True, slots=True)
class Change:
    """The effect of a change set on one resource, in CloudFormation's terms."""

    action: str
    resource_type: str
    logical_id: str
    replacement: str

    def __str__(self) -> str:
        told = f"{self.action} {self.resource_type} {self.logical_id}"
        return (
            told
            if self.replacement in ("", "False")
            else f"{told} (replacement: {self.replacement})"
        )


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """A plan that CloudFormation keeps until execution or deletion. `creating`: the stack is
    new.
    """

    id: str
    stack_id: str
    creating: bool
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an operation: the stack's status, the first failure, and the (type, id) of each
    resource kept on deletion.
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

    def describe(self, stack: str) -> Description | None:
        """The stack by name or id, or None if missing. A deleted stack still exists under its
        id.
        """
        try:
            with asking(f"looking at the stack {stack}"):
                described: Description = self._client.describe_stacks(StackName=stack)["Stacks"][0]
        except SyncloudError as error:
            # A missing stack has the same code as any invalid value, so the message decides: "Stack
            # with id NAME does not exist".
            cause = error.__cause__
            if (
                isinstance(cause, ClientError)
                and "does not exist" in str(cause).partition("(ValidationError)")[2]
            ):
                return None
            raise
        return described

    def template_parameters(self, template: str) -> set[str]:
        """The names of a template's parameters. The call also proves that CloudFormation can parse
        the template.
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
        """Start a change set with the parameters `values`; parameters in `keep` keep their current
        value.
        """
        with asking("creating a change set"):
            answer = self._client.create_change_set(
                StackName=stack,
                ChangeSetName=f"{OUR_NAMES}{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
                ChangeSetType="CREATE" if creating else "UPDATE",
                TemplateBody=template,
                Parameters=[
                    *(
                        {"ParameterKey": key, "ParameterValue": value}
                        for key, value in values.items()
                    ),
                    *({"ParameterKey": key, "UsePreviousValue": True} for key in sorted(keep)),
                ],
                Capabilities=["CAPABILITY_IAM"],
            )
        return ChangeSet(answer["Id"], answer["StackId"], creating)

    def await_changes(self, change_set: ChangeSet) -> tuple[Change, ...]:
        """Wait for a change set and return its changes.

        An empty result means no change, which CloudFormation reports as a failure.
        """
        for _ in self._beats("making the change set"):
            with asking("reading the change set"):
                pages = list(
                    self._client.get_paginator("describe_change_set").paginate(
                        ChangeSetName=change_set.id
                    )
                )
            status, reason = pages[0]["Status"], pages[0].get("StatusReason", "")
            if status == "FAILED" and not _UNCHANGED.search(reason):
                raise failed(
                    f"the change set failed: {reason}",
                    hint="nothing was changed; mend that and try again",
                )
            if status in ("CREATE_COMPLETE", "FAILED"):
                rows = (
                    row["ResourceChange"]
                    for page in pages
                    for row in page.get("Changes", ())
                    if "ResourceChange" in row
                )
                return tuple(
                    Change(
                        row["Action"],
                        row["ResourceType"],
                        row["LogicalResourceId"],
                        row.get("Replacement", ""),
                    )
                    for row in rows
                )
        raise AssertionError("the last beat raises")

    def change_set_names(self, stack: Description) -> list[str]:
        with asking("listing the change sets"):
            pages = self._client.get_paginator("list_change_sets").paginate(
                StackName=stack["StackName"]
            )
            return [row["ChangeSetName"] for page in pages for row in page.get("Summaries", ())]

    def delete_change_set(self, change_set: ChangeSet) -> None:
        # An emulator omits an empty element of the answer, which breaks botocore's parser. The
        # deletion has succeeded by then.
        with asking("deleting the change set"), contextlib.suppress(KeyError):
            self._client.delete_change_set(ChangeSetName=change_set.id)

    def buckets(self, stack_id: str) -> list[str]:
        """The buckets that live in the stack, whatever its template."""
        with asking("listing the stack's resources"):
            pages = self._client.get_paginator("list_stack_resources").paginate(StackName=stack_id)
            return [
                row["PhysicalResourceId"]
                for page in pages
                for row in page["StackResourceSummaries"]
                if row["ResourceType"] == "AWS::S3::Bucket"
                and row["ResourceStatus"] not in ("DELETE_COMPLETE", "DELETE_SKIPPED")
                and row.get("PhysicalResourceId")
            ]

    def execute(self, change_set: ChangeSet) -> Outcome:
        """Execute a change set and wait for its end, success or failure."""
        known = self._known_events(change_set.stack_id)
        with asking("executing the change set"):
            self._client.execute_change_set(ChangeSetName=change_set.id)
        return self._follow(change_set.stack_id, known)

    def delete(self, stack: Description) -> Outcome:
        """Delete a stack and wait for its end.

        Raises ConfigurationError (or PermissionRefused) if a resource resists deletion.
        """
        stack_id = stack["StackId"]
        known = self._known_events(stack_id)
        with asking("deleting the stack"):
            self._client.delete_stack(StackName=stack["StackName"])
        outcome = self._follow(stack_id, known)
        if outcome.status != "DELETE_COMPLETE":
            hint = (
                "a policy that is attached must be detached first; then run the same command again"
            )
            raise failed(
                f"the stack could not be deleted: {outcome.failure or outcome.status}", hint=hint
            )
        return outcome

    def delete_planned(self, stack: Description) -> None:
        """Delete a stack that has only a plan; such a deletion produces no events to follow."""
        with asking("deleting the empty stack"):
            self._client.delete_stack(StackName=stack["StackName"])
        for _ in self._beats("deleting the empty stack"):
            left = self.describe(stack["StackId"])
            if left is None or left["StackStatus"] == "DELETE_COMPLETE":
                return

    def await_quiet(self, stack_id: str) -> Description | None:
        """Wait for the end of a running operation, started by another user or an interrupted run.

        Returns None if the stack no longer exists.
        """
        known = self._known_events(stack_id)
        for _ in self._beats("what is being done to the stack"):
            stack = self.describe(stack_id)
            self._fresh_events(stack_id, known)
            if stack is None or stack["StackStatus"] == "DELETE_COMPLETE":
                return None
            if not running(stack["StackStatus"]):
                return stack
        raise AssertionError("the last beat raises")

    def _follow(self, stack_id: str, known: set[str]) -> Outcome:
        """Wait for the event that shows the stack itself at rest.

        The stack's status alone is not enough, because the status may still be the previous one.
        """
        failure, kept = "", []
        for _ in self._beats("what is being done to the stack"):
            ended = ""
            for event in self._fresh_events(stack_id, known):
                status, of_stack = (
                    event["ResourceStatus"],
                    event.get("PhysicalResourceId") == stack_id,
                )
                if of_stack and not running(status):
                    ended = status
                if status.endswith("_FAILED") and not of_stack:
                    failure = failure or _failure(event)
                if status == "DELETE_SKIPPED":
                    kept.append((event["ResourceType"], event["PhysicalResourceId"]))
            if ended:
                return Outcome(ended, failure, tuple(kept))
        raise AssertionError("the last beat raises")

    def _known_events(self, stack_id: str) -> set[str]:
        with asking("reading the stack's events"):
            pages = self._client.get_paginator("describe_stack_events").paginate(StackName=stack_id)
            return {event["EventId"] for page in pages for event in page["StackEvents"]}

    def _fresh_events(self, stack_id: str, known: set[str]) -> list[dict[str, Any]]:
        """Report the events that are not in `known`, oldest first, and add them to `known`."""
        fresh: list[dict[str, Any]] = []
        with asking("reading the stack's events"):
            for page in self._client.get_paginator("describe_stack_events").paginate(
                StackName=stack_id
            ):
                new = [event for event in page["StackEvents"] if event["EventId"] not in known]
                if not new:
                    break  # newest first, so older pages are known too
                fresh += new
        fresh.sort(key=lambda event: event["Timestamp"])
        for event in fresh:
            known.add(event["EventId"])
            self._report(_told(event))
        return fresh

    def _beats(self, what: str) -> Iterator[None]:
        """A polling loop: yields every `poll` seconds and raises Unavailable after `patience`
        seconds.
        """
        end = time.monotonic() + self._patience
        while time.monotonic() < end:
            yield
            time.sleep(self._poll)
        raise Unavailable(
            f"{what} has not come to an end in {self._patience / 60:.0f} minutes",
            hint="CloudFormation goes on with it; run the same command again, it waits for it",
        )


@contextlib.contextmanager
def asking(what: str) -> Iterator[None]:
    """The error boundary: translates boto3's exceptions into our errors."""
    try:
        yield
    except aws_errors() as error:
        said = error.response["Error"] if isinstance(error, ClientError) else {}
        told = f"{what}: {said.get('Message', error)}"
        if said and _CONTENTION.search(str(error)):
            raise BusyError(
                told,
                hint="somebody else is changing the stack; run the same command again, it waits for them",
            ) from error
        if said.get("Code") == "ValidationError":
            raise ConfigurationError(
                told, hint="check --bucket, --prefix and --stack-name"
            ) from error
        raise translate(error, what) from error


def failed(message: str, *, hint: str) -> SyncloudError:
    """PermissionRefused if the resource's reason in `message` shows a denial, else
    ConfigurationError.
    """
    kind = PermissionRefused if _REFUSED.search(message) else ConfigurationError
    return kind(message, hint=hint)


def running(status: str) -> bool:
    return status.endswith("_IN_PROGRESS") and status != PLANNED


def _failure(event: Mapping[str, Any]) -> str:
    """The failure of a resource. Empty for a resource that was cancelled after another one's
    failure.
    """
    reason = event.get("ResourceStatusReason", "")
    return (
        ""
        if "cancelled" in reason.lower()
        else f"{event['ResourceType']} {event['LogicalResourceId']}: {reason}"
    )


def _told(event: Mapping[str, Any]) -> str:
    line = f"{event['ResourceStatus']} {event['ResourceType']} {event['LogicalResourceId']}"
    reason = event.get("ResourceStatusReason", "")
    return f"{line}: {reason}" if reason and event["ResourceStatus"].endswith("_FAILED") else line
