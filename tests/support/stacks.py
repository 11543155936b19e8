"""Stacks of CloudFormation: one in the emulator, and one with stubbed clients."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
from botocore.stub import Stubber

from syncloud import cf
from syncloud.cf.operations import ChangeSet
from syncloud.cf.stack import Stack

if TYPE_CHECKING:
    from tests.support.emulator import Emulator


class Cloud:
    """One stack of a name that no other test has, and the emulator around it."""

    def __init__(self, server: Emulator) -> None:
        self.cloudformation = server.client("cloudformation")
        self.s3 = server.client("s3")
        self.sqs = server.client("sqs")
        self.iam = server.client("iam")
        self.name = f"setup-{uuid.uuid4().hex[:12]}"
        self.bucket = f"{self.name}-bucket"
        self.lines: list[str] = []
        self.stack = Stack(
            self.cloudformation,
            self.s3,
            name=self.name,
            report=self.lines.append,
            poll=0.01,
            patience=10,
        )

    def set_up(self, *, prefix: str = "", **more: str) -> cf.Outputs | None:
        """What the command does. None: nothing to change."""
        self.stack.settle()
        change_set = self.stack.plan(cf.parameters(bucket=self.bucket, prefix=prefix) | more)
        return None if change_set is None else self.stack.execute(change_set)

    def status(self) -> str | None:
        stacks = self.cloudformation.describe_stacks()["Stacks"]
        found: list[str] = [
            stack["StackStatus"] for stack in stacks if stack["StackName"] == self.name
        ]
        return found[0] if found else None

    def has_bucket(self) -> bool:
        return self.bucket in [row["Name"] for row in self.s3.list_buckets()["Buckets"]]

    def deploy(self, template: dict[str, Any], *, status: str) -> None:
        """A stack as somebody else makes it, until it has come to `status`."""
        self.cloudformation.create_stack(StackName=self.name, TemplateBody=json.dumps(template))
        for _ in range(1000):
            if self.status() == status:
                return
        raise AssertionError(f"{self.name} is {self.status()}")

    def clear(self) -> None:
        """Whatever a test left, so that the emulator's memory does not fill up."""
        if self.status() is not None:
            self.cloudformation.delete_stack(StackName=self.name)
        if self.has_bucket():
            page = self.s3.list_object_versions(Bucket=self.bucket)
            for row in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]:
                self.s3.delete_object(
                    Bucket=self.bucket, Key=row["Key"], VersionId=row["VersionId"]
                )


def failing(**parameters: str) -> dict[str, Any]:
    """A template whose only resource cannot be made."""
    return {
        "Parameters": {
            name: {"Type": "String", "Default": value} for name, value in parameters.items()
        },
        "Resources": {"Nothing": {"Type": "AWS::Nowhere::Thing", "Properties": {"Name": "x"}}},
    }


def ours(bucket: str) -> dict[str, str]:
    return {
        "BucketName": bucket,
        "FilterPrefix": "",
        "NoncurrentVersionDays": "30",
        "MaxReceiveCount": "10",
    }


STACK_ID = "arn:aws:cloudformation:eu-central-1:111122223333:stack/s/0"


class Stubbed:
    """A stack whose clients answer what they are told to, in that order."""

    def __init__(self) -> None:
        made: list[Any] = [
            boto3.client(
                service,
                region_name="eu-central-1",
                aws_access_key_id="a",
                aws_secret_access_key="b",
            )
            for service in ("cloudformation", "s3")
        ]
        self.cloudformation, self.s3 = map(Stubber, made)
        self.lines: list[str] = []
        self.stack = Stack(*made, name="s", report=self.lines.append, poll=0, patience=5)

    def describes(self, status: str, *, outputs: dict[str, str] | None = None) -> None:
        parameters = [
            {"ParameterKey": key, "ParameterValue": value} for key, value in ours("b").items()
        ]
        told = [{"OutputKey": key, "OutputValue": value} for key, value in (outputs or {}).items()]
        stack = {
            "StackName": "s",
            "StackId": STACK_ID,
            "StackStatus": status,
            "CreationTime": datetime.now(UTC),
            "Parameters": parameters,
            "Outputs": told,
        }
        self.cloudformation.add_response("describe_stacks", {"Stacks": [stack]})

    def tells(self, *events: tuple[str, str, str, str]) -> None:
        """Answer with (status, type, physical id, reason), given oldest first.

        Earlier events are repeated; the answer is newest first.
        """
        rows = [
            {
                "StackId": STACK_ID,
                "StackName": "s",
                "EventId": f"{number}",
                "LogicalResourceId": kind.rpartition("::")[2],
                "PhysicalResourceId": physical,
                "ResourceType": kind,
                "ResourceStatus": status,
                "ResourceStatusReason": reason,
                "Timestamp": datetime.fromtimestamp(number, UTC),
            }
            for number, (status, kind, physical, reason) in enumerate(events)
        ]
        self.cloudformation.add_response("describe_stack_events", {"StackEvents": rows[::-1]})


OLD = ("CREATE_COMPLETE", "AWS::CloudFormation::Stack", STACK_ID, "")
PLAN = ChangeSet(
    "arn:aws:cloudformation:eu-central-1:111122223333:changeSet/c/0", STACK_ID, creating=False
)
