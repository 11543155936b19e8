"""The stack of syncloud's template: plan, execute and destroy, with guards against data loss.

Every step is restartable. A new run waits for a running operation and removes the remains of a
failed creation. An unexecuted change set does no harm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from ..errors import ConfigurationError, SyncloudError
from .guard import FAILED_CREATION, Guard, parameters_of
from .operations import PLANNED, ChangeSet, Client, Description, Operations, failed, running
from .template import Outputs, template_text

_DONE = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE"})
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
        self._guard = Guard(name, s3)
        self._name = name
        self._report = report

    def settle(self) -> None:
        """Wait for any running operation, and delete the remains of a failed creation.

        Such a stack never worked and holds nothing.
        """
        stack = self._operations.describe(self._name)
        if stack is not None and running(stack["StackStatus"]):
            self._report(f"{stack['StackStatus']} {self._name}: waiting for the running operation")
            stack = self._operations.await_quiet(stack["StackId"])
        if stack is not None and stack["StackStatus"] == FAILED_CREATION:
            self._guard.require_ours(stack)
            text = "deleting the remains of a failed creation"
            self._report(f"{FAILED_CREATION} {self._name}: {text}")
            self._operations.delete(stack)

    def plan(self, parameters: Mapping[str, str]) -> ChangeSet | None:
        """The change set to the template with `parameters`; None if nothing changes.

        Missing parameters keep their current values. The caller must execute or discard the change
        set. Raises BusyError during another operation; `settle` waits for its end.
        """
        stack = self._operations.describe(self._name)
        if stack is None or stack["StackStatus"] == PLANNED:
            self._guard.require_free(parameters["BucketName"])
            return self._planned(parameters, creating=True, others=set())
        self._guard.require_ready(stack)
        self._guard.require_bucket(stack, parameters["BucketName"])
        others = parameters_of(stack).keys() - parameters.keys()
        return self._planned(parameters, creating=False, others=others)

    def _planned(
        self, parameters: Mapping[str, str], *, creating: bool, others: set[str]
    ) -> ChangeSet | None:
        """`others` are further parameters of the stack, of this template or of an earlier one."""
        template = template_text()
        keep = others and others & self._operations.template_parameters(template)
        begun = self._operations.create_change_set(
            self._name, template, creating=creating, values=parameters, keep=keep
        )
        try:
            changes = self._operations.await_changes(begun)
            self._guard.require_no_removal(changes)
        except BaseException:
            with contextlib.suppress(SyncloudError):
                self.discard(begun)
            raise
        if not changes:
            self.discard(begun)
            return None
        return ChangeSet(begun.id, begun.stack_id, creating, changes)

    def execute(self, change_set: ChangeSet) -> Outputs:
        """Execute the change set and wait for its end.

        CloudFormation completes all changes or rolls all back. A rollback raises the first failure.
        """
        outcome = self._operations.execute(change_set)
        if outcome.status not in _DONE:
            cause = outcome.failure or "no resource has a reason"
            hint = "all changes were rolled back; fix the cause and run syncloud setup again"
            raise failed(f"the stack {self._name} ended in {outcome.status}: {cause}", hint=hint)
        return self.outputs()

    def discard(self, change_set: ChangeSet) -> None:
        """Delete a change set, and the empty stack of a new plan, unless other plans exist."""
        self._operations.delete_change_set(change_set)
        if not change_set.creating:
            return
        stack = self._operations.describe(change_set.stack_id)
        is_planned = stack is not None and stack["StackStatus"] == PLANNED
        if stack is not None and is_planned and not self._operations.change_set_names(stack):
            self._operations.delete_planned(stack)

    def outputs(self) -> Outputs:
        """The stack's outputs. Raises ConfigurationError if the stack is missing or not ours."""
        stack = self._operations.describe(self._name)
        if stack is None:
            text = f"there is no stack {self._name} in this region and account"
            raise ConfigurationError(text, hint="run syncloud setup")
        try:
            return _outputs(stack)
        except KeyError as missing:
            text = f"the stack {self._name} ({stack['StackStatus']}) has no output {missing}"
            hint = "give the name of a stack that syncloud setup made (--stack-name)"
            raise ConfigurationError(text, hint=hint) from None

    def destroy(self, *, bucket: str) -> list[str]:
        """Delete the stack, if its bucket is `bucket` and its buckets are empty.

        The template keeps bucket and queues; the result is a list of commands that delete them.
        """
        self.settle()
        stack = self._operations.describe(self._name)
        if stack is None:
            self._report(f"there is no stack {self._name}: nothing to delete")
            return []
        if stack["StackStatus"] == PLANNED:
            self._guard.require_our_plans(self._operations.change_set_names(stack))
            self._operations.delete_planned(stack)
            return []
        self._require_destructible(stack, bucket)
        region = stack["StackId"].split(":")[3]
        kept = sorted(self._operations.delete(stack).kept)
        return [f"{_removal(kind, name)} --region {region}" for kind, name in kept]

    def _require_destructible(self, stack: Description, bucket: str) -> None:
        self._guard.require_ours(stack)
        self._guard.require_bucket(stack, bucket)
        for name in self._operations.buckets(stack["StackId"]):
            self._guard.require_empty(name, owner=_account(stack))


def _outputs(stack: Description) -> Outputs:
    """Raises KeyError for a missing output."""
    found = {row["OutputKey"]: row["OutputValue"] for row in stack.get("Outputs", ())}
    return Outputs(
        bucket=found["BucketName"],
        prefix=found.get("Prefix", ""),
        queue_url=found["QueueUrl"],
        dead_letter_queue_url=found["DeadLetterQueueUrl"],
        region=found["Region"],
        push_policy_arn=found["PushPolicyArn"],
        pull_policy_arn=found["PullPolicyArn"],
        account=_account(stack),
    )


def _removal(kind: str, name: str) -> str:
    return _REMOVAL.get(kind, f"# {kind} {{}}").format(name)


def _account(stack: Description) -> str:
    """The account in the stack's id: arn:aws:cloudformation:REGION:ACCOUNT:stack/NAME/UUID."""
    account: str = stack["StackId"].split(":")[4]
    return account
