"""What we ask of CloudFormation: change sets, events, deletion; each call translated, each wait followed to its end.

It knows nothing of syncloud's template; `stack.py` decides.
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
"""A boto3 client; boto3 makes their methods at run time."""

Description: TypeAlias = Mapping[str, Any]
"""A stack as DescribeStacks tells it."""

OUR_NAMES = "syncloud-"
"""How the names of our change sets begin."""

PLANNED = "REVIEW_IN_PROGRESS"
"""The status of a stack that has a first change set and nothing else. Nothing runs, whatever the name says."""

_UNCHANGED = re.compile(r"didn't contain changes|no updates are to be performed", re.IGNORECASE)
_REFUSED = re.compile(r"access ?denied|not authorized|forbidden", re.IGNORECASE)
_CONTENTION = re.compile(r"_IN_PROGRESS (state|status)|InvalidChangeSetStatus|OperationInProgress|AlreadyExistsException")


@dataclass(frozen=True, slots=True)
class Change:
    """What executing a change set does to one resource, in CloudFormation's words."""

    action: str
    resource_type: str
    logical_id: str
    replacement: str

    def __str__(self) -> str:
        told = f"{self.action} {self.resource_type} {self.logical_id}"
        return told if self.replacement in ("", "False") else f"{told} (replacement: {self.replacement})"


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """A plan that CloudFormation keeps until it is executed or discarded. `creating`: the stack is new."""

    id: str
    stack_id: str
    creating: bool
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an operation ended: the stack's status, the first failure, and the (type, id) of what was kept on deletion."""

    status: str
    failure: str
    kept: tuple[tuple[str, str], ...] = ()


class Operations:
    """CloudFormation, through a boto3 client.

    `report` gets one line for each event of a resource. `poll` and `patience` in seconds: how often CloudFormation is asked,
    and after how long waiting is given up (the operation itself goes on).

    Every method raises Unavailable, CredentialsError or PermissionRefused for what AWS answers, BusyError where somebody
    else is at work on the stack.
    """

    def __init__(self, client: Client, *, report: Callable[[str], None], poll: float, patience: float) -> None:
        self._client = client
        self._report = report
        self._poll = poll
        self._patience = patience

    def describe(self, stack: str) -> Description | None:
        """By name or id; None if there is no such stack (a deleted one is still there under its id)."""
        try:
            with asking(f"looking at the stack {stack}"):
                described: Description = self._client.describe_stacks(StackName=stack)["Stacks"][0]
        except SyncloudError as error:
            # "Stack with id NAME does not exist", under the same code as any other wrong value.
            cause = error.__cause__
            if isinstance(cause, ClientError) and "does not exist" in str(cause).partition("(ValidationError)")[2]:
                return None
            raise
        return described

    def template_parameters(self, template: str) -> set[str]:
        """The names of the parameters that a template has; also proves that CloudFormation can read it."""
        with asking("reading the template"):
            rows = self._client.get_template_summary(TemplateBody=template).get("Parameters", ())
            return {row["ParameterKey"] for row in rows}

    def create_change_set(
        self, stack: str, template: str, *, creating: bool, values: Mapping[str, str], keep: set[str]
    ) -> ChangeSet:
        """Begins a plan: the parameters are `values`, and what they are now for those in `keep`."""
        with asking("creating a change set"):
            answer = self._client.create_change_set(
                StackName=stack,
                ChangeSetName=f"{OUR_NAMES}{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
                ChangeSetType="CREATE" if creating else "UPDATE",
                TemplateBody=template,
                Parameters=[
                    *({"ParameterKey": key, "ParameterValue": value} for key, value in values.items()),
                    *({"ParameterKey": key, "UsePreviousValue": True} for key in sorted(keep)),
                ],
                Capabilities=["CAPABILITY_IAM"],
            )
        return ChangeSet(answer["Id"], answer["StackId"], creating)

    def await_changes(self, change_set: ChangeSet) -> tuple[Change, ...]:
        """What a plan holds as soon as it is made. Empty: nothing to change, which CloudFormation calls a failure."""
        for _ in self._beats("making the change set"):
            with asking("reading the change set"):
                pages = list(self._client.get_paginator("describe_change_set").paginate(ChangeSetName=change_set.id))
            status, reason = pages[0]["Status"], pages[0].get("StatusReason", "")
            if status == "FAILED" and not _UNCHANGED.search(reason):
                raise failed(f"the change set failed: {reason}", hint="nothing was changed; mend that and try again")
            if status in ("CREATE_COMPLETE", "FAILED"):
                rows = (row["ResourceChange"] for page in pages for row in page.get("Changes", ()) if "ResourceChange" in row)
                return tuple(
                    Change(row["Action"], row["ResourceType"], row["LogicalResourceId"], row.get("Replacement", ""))
                    for row in rows
                )
        raise AssertionError("the last beat raises")

    def change_set_names(self, stack: Description) -> list[str]:
        with asking("listing the change sets"):
            pages = self._client.get_paginator("list_change_sets").paginate(StackName=stack["StackName"])
            return [row["ChangeSetName"] for page in pages for row in page.get("Summaries", ())]

    def delete_change_set(self, change_set: ChangeSet) -> None:
        # An emulator leaves out the empty element in the answer, and botocore stumbles over that: the work is done by then.
        with asking("deleting the change set"), contextlib.suppress(KeyError):
            self._client.delete_change_set(ChangeSetName=change_set.id)

    def buckets(self, stack_id: str) -> list[str]:
        """Those that live in the stack, whatever its template is."""
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
        """Executes a change set and follows it to its end, good or bad."""
        known = self._known_events(change_set.stack_id)
        with asking("executing the change set"):
            self._client.execute_change_set(ChangeSetName=change_set.id)
        return self._follow(change_set.stack_id, known)

    def delete(self, stack: Description) -> Outcome:
        """Deletes a stack and follows it to its end. ConfigurationError (or PermissionRefused) if something would not go."""
        stack_id = stack["StackId"]
        known = self._known_events(stack_id)
        with asking("deleting the stack"):
            self._client.delete_stack(StackName=stack["StackName"])
        outcome = self._follow(stack_id, known)
        if outcome.status != "DELETE_COMPLETE":
            hint = "a policy that is attached must be detached first; then run the same command again"
            raise failed(f"the stack could not be deleted: {outcome.failure or outcome.status}", hint=hint)
        return outcome

    def delete_planned(self, stack: Description) -> None:
        """Deletes a stack that was only planned; it goes without events that could be followed."""
        with asking("deleting the empty stack"):
            self._client.delete_stack(StackName=stack["StackName"])
        for _ in self._beats("deleting the empty stack"):
            left = self.describe(stack["StackId"])
            if left is None or left["StackStatus"] == "DELETE_COMPLETE":
                return

    def await_quiet(self, stack_id: str) -> Description | None:
        """Until an operation ends that somebody else began, or a run that was interrupted. None if the stack has gone."""
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
        """Until an event tells that the stack itself has come to rest: its status alone could still be the one before."""
        failure, kept = "", []
        for _ in self._beats("what is being done to the stack"):
            ended = ""
            for event in self._fresh_events(stack_id, known):
                status, of_stack = event["ResourceStatus"], event.get("PhysicalResourceId") == stack_id
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
        """Those not in `known`, oldest first; reported, and known from now on."""
        fresh: list[dict[str, Any]] = []
        with asking("reading the stack's events"):
            for page in self._client.get_paginator("describe_stack_events").paginate(StackName=stack_id):
                new = [event for event in page["StackEvents"] if event["EventId"] not in known]
                if not new:
                    break  # newest first: older pages are known too
                fresh += new
        fresh.sort(key=lambda event: event["Timestamp"])
        for event in fresh:
            known.add(event["EventId"])
            self._report(_told(event))
        return fresh

    def _beats(self, what: str) -> Iterator[None]:
        """Turns of a loop that waits, `poll` seconds apart, until `patience` is at an end: then Unavailable."""
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
    """The edge: what boto3 raises becomes one of our errors."""
    try:
        yield
    except aws_errors() as error:
        said = error.response["Error"] if isinstance(error, ClientError) else {}
        told = f"{what}: {said.get('Message', error)}"
        if said and _CONTENTION.search(str(error)):
            raise BusyError(
                told, hint="somebody else is changing the stack; run the same command again, it waits for them"
            ) from error
        if said.get("Code") == "ValidationError":
            raise ConfigurationError(told, hint="check --bucket, --prefix and --stack-name") from error
        raise translate(error, what) from error


def failed(message: str, *, hint: str) -> SyncloudError:
    """PermissionRefused if that is what a resource's reason (part of `message`) tells of, else ConfigurationError."""
    kind = PermissionRefused if _REFUSED.search(message) else ConfigurationError
    return kind(message, hint=hint)


def running(status: str) -> bool:
    return status.endswith("_IN_PROGRESS") and status != PLANNED


def _failure(event: Mapping[str, Any]) -> str:
    """Empty for a resource that was only called off because another one failed."""
    reason = event.get("ResourceStatusReason", "")
    return "" if "cancelled" in reason.lower() else f"{event['ResourceType']} {event['LogicalResourceId']}: {reason}"


def _told(event: Mapping[str, Any]) -> str:
    line = f"{event['ResourceStatus']} {event['ResourceType']} {event['LogicalResourceId']}"
    reason = event.get("ResourceStatusReason", "")
    return f"{line}: {reason}" if reason and event["ResourceStatus"].endswith("_FAILED") else line
