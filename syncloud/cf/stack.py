"""The stack of syncloud's template: plan, execute and destroy, with guards against data loss.

Every step is restartable. A new run waits for a running operation and removes the remains of a
failed creation. An unexecuted change set does no harm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

from botocore.exceptions import ClientError

from ..errors import BusyError, ConfigurationError, SyncloudError
from .operations import (
    OUR_NAMES,
    PLANNED,
    Change,
    ChangeSet,
    Client,
    Description,
    Operations,
    asking,
    failed,
    running,
)
from .template import Outputs, template_text

# Only syncloud's template has these parameters together, so they identify our stacks before a
# change.
_OURS = frozenset({"BucketName", "FilterPrefix", "NoncurrentVersionDays", "MaxReceiveCount"})
_READY = frozenset(
    {
        "CREATE_COMPLETE",
        "UPDATE_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE",
        "IMPORT_COMPLETE",
        "IMPORT_ROLLBACK_COMPLETE",
    }
)
_DONE = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE"})
_FAILED_FIRST_TRY = "ROLLBACK_COMPLETE"

_REMOVAL = {
    "AWS::S3::Bucket": "aws s3api delete-bucket --bucket {}",
    "AWS::SQS::Queue": "aws sqs delete-queue --queue-url {}",
}


class Stack:
    """The stack called `name`, through boto3 clients.

    `report` gets one line per resource event. `poll` is the polling interval and `patience` the
    timeout, both in seconds; after the timeout, the operation itself continues.

    Every method raises Unavailable, CredentialsError or PermissionRefused for AWS errors. In a
    state without a way on, every method raises ConfigurationError with the next step.
    """

    def __init__(
        self,
        cloudformation: Client,
        s3: Client,
        *,
        name: str,
        report: Callable[[str], None],
        poll: float = 2.0,
        patience: float = 1800.0,
    ) -> None:
        self._operations = Operations(cloudformation, report=report, poll=poll, patience=patience)
        self._s3 = s3
        self._name = name
        self._report = report

    def settle(self) -> None:
        """Wait for any running operation, and remove the remains of a failed creation.

        Such a stack never worked and holds nothing.
        """
        stack = self._operations.describe(self._name)
        if stack is not None and running(stack["StackStatus"]):
            self._report(
                f"{stack['StackStatus']} {self._name}: waiting for what is being done to it"
            )
            stack = self._operations.await_quiet(stack["StackId"])
        if stack is not None and stack["StackStatus"] == _FAILED_FIRST_TRY:
            self._must_be_ours(stack)
            self._report(
                f"{_FAILED_FIRST_TRY} {self._name}: removing what the failed first try left"
            )
            self._operations.delete(stack)

    def plan(self, parameters: Mapping[str, str]) -> ChangeSet | None:
        """The change set from the present stack to the template with `parameters`; None if nothing
        changes.

        Missing parameters keep their current values. The caller must execute or discard the change
        set. Raises BusyError during another operation; `settle` waits for its end.
        """
        stack = self._operations.describe(self._name)
        if stack is None or stack["StackStatus"] == PLANNED:
            self._must_be_free(parameters["BucketName"])
            return self._planned(parameters, creating=True, keep=set())
        self._must_be_ready(stack)
        self._must_keep_bucket(stack, parameters["BucketName"])
        return self._planned(
            parameters, creating=False, keep=_parameters(stack).keys() - parameters.keys()
        )

    def execute(self, change_set: ChangeSet) -> Outputs:
        """Execute the change set and wait for its end.

        CloudFormation completes all changes or rolls all back. A rollback raises the first failure.
        """
        outcome = self._operations.execute(change_set)
        if outcome.status not in _DONE:
            raise failed(
                f"the stack {self._name} came to {outcome.status}: {outcome.failure or 'no resource said why'}",
                hint="what was begun has been rolled back; mend the cause and run syncloud setup again",
            )
        return self.outputs()

    def discard(self, change_set: ChangeSet) -> None:
        """Delete a change set. The empty stack of a new plan is deleted too, unless other plans
        exist.
        """
        self._operations.delete_change_set(change_set)
        if not change_set.creating:
            return
        stack = self._operations.describe(change_set.stack_id)
        if (
            stack is None
            or stack["StackStatus"] != PLANNED
            or self._operations.change_set_names(stack)
        ):
            return
        self._operations.delete_planned(stack)

    def outputs(self) -> Outputs:
        """The stack's outputs. Raises ConfigurationError if the stack is missing or not ours."""
        stack = self._operations.describe(self._name)
        if stack is None:
            raise ConfigurationError(
                f"there is no stack {self._name} in this region and account",
                hint="run syncloud setup",
            )
        told = {row["OutputKey"]: row["OutputValue"] for row in stack.get("Outputs", ())}
        try:
            return Outputs(
                bucket=told["BucketName"],
                prefix=told.get("Prefix", ""),
                queue_url=told["QueueUrl"],
                dead_letter_queue_url=told["DeadLetterQueueUrl"],
                region=told["Region"],
                push_policy_arn=told["PushPolicyArn"],
                pull_policy_arn=told["PullPolicyArn"],
                account=_account(stack["StackId"]),
            )
        except KeyError as missing:
            raise ConfigurationError(
                f"the stack {self._name} ({stack['StackStatus']}) has no output {missing}",
                hint="give the name of a stack that syncloud setup made (--stack-name)",
            ) from None

    def destroy(self, *, bucket: str) -> list[str]:
        """Delete the stack, if its bucket is `bucket` and its buckets hold no object version or
        delete marker.

        The template keeps bucket and queues; the result is a list of commands that remove them.
        """
        self.settle()
        stack = self._operations.describe(self._name)
        if stack is None:
            self._report(f"there is no stack {self._name}: nothing to take down")
            return []
        stack_id = stack["StackId"]
        if stack["StackStatus"] == PLANNED:
            self._must_hold_only_our_plans(stack)
            self._operations.delete_planned(stack)
            return []
        self._must_be_ours(stack)
        self._must_keep_bucket(stack, bucket)
        for name in self._operations.buckets(stack_id):
            self._must_be_empty(name, owner=_account(stack_id))
        region = stack_id.split(":")[3]
        kept = sorted(self._operations.delete(stack).kept)
        return [
            f"{_REMOVAL.get(kind, f'# {kind} {{}}').format(name)} --region {region}"
            for kind, name in kept
        ]

    def _planned(
        self, parameters: Mapping[str, str], *, creating: bool, keep: set[str]
    ) -> ChangeSet | None:
        template = template_text()
        keep = keep and keep & self._operations.template_parameters(template)
        begun = self._operations.create_change_set(
            self._name, template, creating=creating, values=parameters, keep=keep
        )
        try:
            changes = self._operations.await_changes(begun)
            self._must_not_remove(changes)
        except BaseException:
            with contextlib.suppress(SyncloudError):
                self.discard(begun)
            raise
        if not changes:
            self.discard(begun)
            return None
        return ChangeSet(begun.id, begun.stack_id, creating, changes)

    def _must_be_free(self, bucket: str) -> None:
        """Refuse a taken bucket name early. CloudFormation would fail halfway, with a shorter
        message.
        """
        try:
            with asking(f"looking for the bucket {bucket}"):
                self._s3.head_bucket(Bucket=bucket)
        except SyncloudError as error:
            status = _http_status(error)
            if status == 404:
                return
            if status in (301, 403):
                raise ConfigurationError(
                    f"there is a bucket {bucket} already, in another account or region, or out of your sight",
                    hint="choose another name: bucket names are shared by all accounts",
                ) from error
            raise
        raise ConfigurationError(
            f"the bucket {bucket} exists and does not belong to the stack {self._name}",
            hint=f"choose another name, remove it if it is empty (aws s3api delete-bucket --bucket {bucket}), "
            "or use it as it is: docs/SETUP.md, 'Bring your own bucket and queue'",
        )

    def _must_be_ours(self, stack: Description) -> None:
        if not _parameters(stack).keys() >= _OURS:
            raise ConfigurationError(
                f"the stack {self._name} was not made by syncloud setup, and is left alone",
                hint="give another --stack-name",
            )

    def _must_be_ready(self, stack: Description) -> None:
        status, name = stack["StackStatus"], self._name
        if running(status):
            raise BusyError(
                f"the stack {name} is being changed right now ({status})",
                hint="wait until it is done; syncloud setup waits for it, only --dry-run does not",
            )
        self._must_be_ours(stack)
        if status in _READY:
            return
        if status == _FAILED_FIRST_TRY:
            hint = "run syncloud setup without --dry-run: it removes what is left and tries again"
        elif status.startswith("UPDATE_"):
            hint = f"bring it back first: aws cloudformation continue-update-rollback --stack-name {name}"
        else:
            hint = f"see why (aws cloudformation describe-stack-events --stack-name {name}), then run syncloud setup --destroy"
        raise ConfigurationError(
            f"the stack {name} cannot be changed in its state ({status})", hint=hint
        )

    def _must_keep_bucket(self, stack: Description, bucket: str) -> None:
        has = _parameters(stack).get("BucketName", "")
        if has != bucket:
            raise ConfigurationError(
                f"the stack {self._name} belongs to the bucket {has}, not to {bucket}",
                hint="give each bucket a stack of its own (--stack-name)",
            )

    def _must_not_remove(self, changes: Sequence[Change]) -> None:
        """Refuse to remove resources, because removals mean that another user extended the
        template.
        """
        removed = [
            f"{change.resource_type} {change.logical_id}"
            for change in changes
            if change.action == "Remove"
        ]
        if removed:
            raise ConfigurationError(
                f"the stack {self._name} was deployed from an edited template; this would remove {', '.join(removed)}",
                hint="go on with aws cloudformation deploy and your template: docs/SETUP.md, 'Customise'",
            )

    def _must_hold_only_our_plans(self, stack: Description) -> None:
        foreign = [
            name
            for name in self._operations.change_set_names(stack)
            if not name.startswith(OUR_NAMES)
        ]
        if foreign:
            raise ConfigurationError(
                f"the stack {self._name} is only planned, and not by syncloud (change set {foreign[0]}): it is left alone",
                hint="give another --stack-name",
            )

    def _must_be_empty(self, bucket: str, *, owner: str) -> None:
        try:
            with asking(f"listing the versions in {bucket}"):
                page = self._s3.list_object_versions(Bucket=bucket, ExpectedBucketOwner=owner)
        except SyncloudError as error:
            if _http_status(error) == 404:
                return
            raise
        versions, markers = len(page.get("Versions", ())), len(page.get("DeleteMarkers", ()))
        if versions or markers:
            least = "at least " if page.get("IsTruncated") else ""
            held = f"{least}{versions} object versions and {markers} delete markers"
            raise ConfigurationError(
                f"the bucket {bucket} holds {held}: nothing was taken down",
                hint=f"aws s3api list-object-versions --bucket {bucket} shows them; "
                "docs/SETUP.md, 'Take it down', says how to empty a bucket for good",
            )


def _parameters(stack: Description) -> dict[str, str]:
    return {
        row["ParameterKey"]: row.get("ParameterValue", "") for row in stack.get("Parameters", ())
    }


def _account(stack_id: str) -> str:
    """The account from a stack id: arn:aws:cloudformation:REGION:ACCOUNT:stack/NAME/UUID."""
    return stack_id.split(":")[4]


def _http_status(error: SyncloudError) -> int:
    """The HTTP status of the translated error; 0 without a response."""
    cause = error.__cause__
    status = (
        cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if isinstance(cause, ClientError)
        else 0
    )
    return int(status)
