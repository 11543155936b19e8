"""The guard of a stack: refuses each step that would lose data or touch the stack of another user.

Every refusal is a ConfigurationError with the next step, except for BusyError.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from botocore.exceptions import ClientError

from ..errors import BusyError, ConfigurationError, SyncloudError
from .operations import OUR_NAMES, Change, Client, Description, asking, running

FAILED_CREATION = "ROLLBACK_COMPLETE"
_OURS = frozenset({"BucketName", "FilterPrefix", "NoncurrentVersionDays", "MaxReceiveCount"})
"""Parameters of our template. No other one has all of them, so they identify our stacks."""
_READY = frozenset(
    {
        "CREATE_COMPLETE",
        "UPDATE_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE",
        "IMPORT_COMPLETE",
        "IMPORT_ROLLBACK_COMPLETE",
    }
)
_OTHER_STACK = "give another --stack-name"


class Guard:
    """The guard of the stack called `name`; `s3` is a boto3 client."""

    def __init__(self, name: str, s3: Client) -> None:
        self._name = name
        self._s3 = s3

    def require_ours(self, stack: Description) -> None:
        if not parameters_of(stack).keys() >= _OURS:
            text = f"the stack {self._name} was not made by syncloud setup, and stays as it is"
            raise ConfigurationError(text, hint=_OTHER_STACK)

    def require_ready(self, stack: Description) -> None:
        status, name = stack["StackStatus"], self._name
        if running(status):
            hint = "wait for the end of the operation, as syncloud setup does without --dry-run"
            raise BusyError(f"another operation changes the stack {name} ({status})", hint=hint)
        self.require_ours(stack)
        if status not in _READY:
            text = f"the stack {name} cannot be changed in its state ({status})"
            raise ConfigurationError(text, hint=_way_on(status, name))

    def require_bucket(self, stack: Description, bucket: str) -> None:
        """A stack keeps its bucket."""
        own = parameters_of(stack).get("BucketName", "")
        if own != bucket:
            text = f"the stack {self._name} belongs to the bucket {own}, not to {bucket}"
            hint = "give each bucket a stack of its own (--stack-name)"
            raise ConfigurationError(text, hint=hint)

    def require_no_removal(self, changes: Sequence[Change]) -> None:
        """A removal means that another user extended the template."""
        removed = [one for one in changes if one.action == "Remove"]
        if removed:
            names = ", ".join(f"{one.resource_type} {one.logical_id}" for one in removed)
            text = f"the stack {self._name} was deployed from an edited template"
            hint = "deploy your template with aws cloudformation deploy: docs/SETUP.md, 'Customise'"
            raise ConfigurationError(f"{text}; this change would remove {names}", hint=hint)

    def require_our_plans(self, change_sets: Iterable[str]) -> None:
        """A stack with a change set of another user is that user's."""
        foreign = next((name for name in change_sets if not name.startswith(OUR_NAMES)), None)
        if foreign is not None:
            text = f"the stack {self._name} is only planned, and not by syncloud"
            raise ConfigurationError(f"{text} (change set {foreign})", hint=_OTHER_STACK)

    def require_free(self, bucket: str) -> None:
        """No bucket has the name. CloudFormation would fail halfway, with a shorter message."""
        try:
            with asking(f"looking for the bucket {bucket}"):
                self._s3.head_bucket(Bucket=bucket)
        except SyncloudError as error:
            if _http_status(error) == 404:
                return
            if _http_status(error) not in (301, 403):
                raise
            text = f"there is a bucket {bucket} already, in another account or region, or hidden"
            hint = "choose another name: all accounts share the names of buckets"
            raise ConfigurationError(text, hint=hint) from error
        raise self._taken(bucket)

    def _taken(self, bucket: str) -> ConfigurationError:
        delete = f"aws s3api delete-bucket --bucket {bucket}"
        return ConfigurationError(
            f"the bucket {bucket} exists and does not belong to the stack {self._name}",
            hint=f"choose another name, delete the bucket if it is empty ({delete}), or use the "
            "bucket as it is: docs/SETUP.md, 'Bring your own bucket and queue'",
        )

    def require_empty(self, bucket: str, *, owner: str) -> None:
        """The bucket holds no object version and no delete marker."""
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
            text = f"the bucket {bucket} holds {held}: nothing was deleted"
            raise ConfigurationError(text, hint=_way_to_empty(bucket))


def parameters_of(stack: Description) -> dict[str, str]:
    rows = stack.get("Parameters", ())
    return {row["ParameterKey"]: row.get("ParameterValue", "") for row in rows}


def _way_on(status: str, name: str) -> str:
    """The next step for a stack that cannot be changed."""
    if status == FAILED_CREATION:
        return "run syncloud setup without --dry-run, which deletes the remains and tries again"
    if status.startswith("UPDATE_"):
        command = f"aws cloudformation continue-update-rollback --stack-name {name}"
        return f"finish the rollback first: {command}"
    command = f"aws cloudformation describe-stack-events --stack-name {name}"
    return f"look for the cause ({command}), then run syncloud setup --destroy"


def _way_to_empty(bucket: str) -> str:
    command = f"aws s3api list-object-versions --bucket {bucket}"
    place = "docs/SETUP.md, 'Take it down'"
    return f"{command} lists them; {place}, describes how to empty a bucket for good"


def _http_status(error: SyncloudError) -> int:
    """The HTTP status of the translated error; 0 without a response."""
    cause = error.__cause__
    answer = cause.response.get("ResponseMetadata", {}) if isinstance(cause, ClientError) else {}
    return int(answer.get("HTTPStatusCode", 0))
