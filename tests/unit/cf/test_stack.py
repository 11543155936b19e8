"""The stack, deployed for real into the emulator; what the emulator never does (being slow, refusing) is answered by a stub."""

from __future__ import annotations

import json
import os
import stat
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

import boto3
import pytest
from botocore.stub import ANY, Stubber

from syncloud import cf
from syncloud.cf.operations import ChangeSet
from syncloud.cf.stack import Stack
from syncloud.config import parser
from syncloud.errors import BusyError, ConfigurationError, PermissionRefused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.emulator import Emulator

ADDED = {
    "Add AWS::IAM::ManagedPolicy PullPolicy",
    "Add AWS::IAM::ManagedPolicy PushPolicy",
    "Add AWS::S3::Bucket Bucket",
    "Add AWS::S3::BucketPolicy BucketPolicy",
    "Add AWS::SQS::Queue DeadLetterQueue",
    "Add AWS::SQS::Queue Queue",
    "Add AWS::SQS::QueuePolicy DeadLetterQueuePolicy",
    "Add AWS::SQS::QueuePolicy QueuePolicy",
}


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
        self.stack = Stack(self.cloudformation, self.s3, name=self.name, report=self.lines.append, poll=0.01, patience=10)

    def set_up(self, *, prefix: str = "", **more: str) -> cf.Outputs | None:
        """What the command does. None: nothing to change."""
        self.stack.settle()
        change_set = self.stack.plan(cf.parameters(bucket=self.bucket, prefix=prefix) | more)
        return None if change_set is None else self.stack.execute(change_set)

    def status(self) -> str | None:
        stacks = self.cloudformation.describe_stacks()["Stacks"]
        found: list[str] = [stack["StackStatus"] for stack in stacks if stack["StackName"] == self.name]
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
                self.s3.delete_object(Bucket=self.bucket, Key=row["Key"], VersionId=row["VersionId"])


@pytest.fixture
def cloud(aws_server: Emulator) -> Iterator[Cloud]:
    made = Cloud(aws_server)
    yield made
    made.clear()


def failing(**parameters: str) -> dict[str, Any]:
    """A template whose only resource cannot be made."""
    return {
        "Parameters": {name: {"Type": "String", "Default": value} for name, value in parameters.items()},
        "Resources": {"Nothing": {"Type": "AWS::Nowhere::Thing", "Properties": {"Name": "x"}}},
    }


def ours(bucket: str) -> dict[str, str]:
    return {"BucketName": bucket, "FilterPrefix": "", "NoncurrentVersionDays": "30", "MaxReceiveCount": "10"}


# Deploying


def test_a_first_setup_makes_everything_and_tells_of_it(cloud: Cloud) -> None:
    change_set = cloud.stack.plan(cf.parameters(bucket=cloud.bucket, prefix="status/"))
    assert change_set is not None
    assert {str(change) for change in change_set.changes} == ADDED
    made = cloud.stack.execute(change_set)
    assert (made.bucket, made.prefix, made.region) == (cloud.bucket, "status/", "us-east-1")
    for kind, logical_id in (line.split()[1:] for line in ADDED):
        assert f"CREATE_COMPLETE {kind} {logical_id}" in cloud.lines
    assert cloud.lines[-1] == f"CREATE_COMPLETE AWS::CloudFormation::Stack {cloud.name}"
    assert cf.configuration_lines(made) == [
        f"bucket = {cloud.bucket}",
        "prefix = status/",
        f"queue-url = {made.queue_url}",
        "region = us-east-1",
        f"expected-bucket-owner = {'0' * 12}",
    ]
    assert cloud.stack.outputs() == made


def test_what_happens_below_the_prefix_arrives_in_the_queue(cloud: Cloud) -> None:
    made = cloud.set_up(prefix="status/")
    assert made is not None
    assert cloud.s3.get_bucket_versioning(Bucket=made.bucket)["Status"] == "Enabled"
    for key in ("status/a b", "elsewhere", "statusquo"):
        cloud.s3.put_object(Bucket=made.bucket, Key=key, Body=b"x")
    cloud.s3.delete_object(Bucket=made.bucket, Key="status/a b")
    assert sorted(events(cloud, made.queue_url)) == [("ObjectCreated", "status/a b"), ("ObjectRemoved", "status/a b")]


def test_without_a_prefix_everything_arrives(cloud: Cloud) -> None:
    made = cloud.set_up()
    assert made is not None
    assert made.prefix == ""
    cloud.s3.put_object(Bucket=made.bucket, Key="top", Body=b"x")
    assert events(cloud, made.queue_url) == [("ObjectCreated", "top")]


def events(cloud: Cloud, queue_url: str) -> list[tuple[str, str]]:
    """Family and key, of all messages that are there; the test event that S3 sends at first is left out."""
    found: list[tuple[str, str]] = []
    while messages := cloud.sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages"):
        for message in messages:
            records = json.loads(message["Body"]).get("Records", [])
            found += [
                (record["eventName"].partition(":")[0], unquote_plus(record["s3"]["object"]["key"])) for record in records
            ]
    return found


def test_the_settings_reach_queue_and_policies(cloud: Cloud) -> None:
    made = cloud.set_up(prefix="status/")
    assert made is not None
    for arn in (made.push_policy_arn, made.pull_policy_arn):  # the emulator does not give their documents back
        assert cloud.iam.get_policy(PolicyArn=arn)["Policy"]["IsAttachable"]
    attributes = cloud.sqs.get_queue_attributes(QueueUrl=made.queue_url, AttributeNames=["All"])["Attributes"]
    assert (attributes["MessageRetentionPeriod"], attributes["VisibilityTimeout"]) == ("1209600", "120")
    grant, denial = json.loads(attributes["Policy"])["Statement"]
    assert grant["Condition"] == {
        "ArnEquals": {"aws:SourceArn": f"arn:aws:s3:::{cloud.bucket}"},
        "StringEquals": {"aws:SourceAccount": "000000000000"},
    }
    assert grant["Resource"] == denial["Resource"] == attributes["QueueArn"]
    (stack,) = cloud.cloudformation.describe_stacks(StackName=cloud.name)["Stacks"]
    assert attributes["QueueArn"] == f"arn:aws:sqs:us-east-1:000000000000:syncloud-{stack['StackId'].rpartition('/')[2]}"


def test_a_prefix_that_needs_it_is_encoded_in_the_filter(cloud: Cloud) -> None:
    cloud.set_up(prefix="day=1/two words/")
    rows = cloud.s3.get_bucket_notification_configuration(Bucket=cloud.bucket)["QueueConfigurations"]
    assert {row["Filter"]["Key"]["FilterRules"][0]["Value"] for row in rows} == {"day%3D1/two+words/"}


def test_it_deploys_with_a_kms_key(cloud: Cloud) -> None:
    assert cloud.set_up(KmsKeyArn="arn:aws:kms:us-east-1:000000000000:key/1234") is not None


def test_a_second_run_changes_nothing(cloud: Cloud) -> None:
    first = cloud.set_up(prefix="status/")
    cloud.lines.clear()
    assert cloud.set_up(prefix="status/") is None
    assert cloud.lines == []
    assert cloud.stack.outputs() == first
    assert cloud.cloudformation.list_change_sets(StackName=cloud.name)["Summaries"][1:] == []


def test_a_changed_parameter_is_updated_and_others_stay(cloud: Cloud) -> None:
    first = cloud.set_up(prefix="status/", VisibilityTimeout="300", NoncurrentVersionDays="90")
    second = cloud.set_up(prefix="moved/")
    assert first is not None
    assert second is not None
    assert (second.prefix, second.queue_url) == ("moved/", first.queue_url)
    (stack,) = cloud.cloudformation.describe_stacks(StackName=cloud.name)["Stacks"]
    values = {row["ParameterKey"]: row["ParameterValue"] for row in stack["Parameters"]}
    assert (values["VisibilityTimeout"], values["NoncurrentVersionDays"]) == ("300", "90")
    cloud.s3.put_object(Bucket=cloud.bucket, Key="moved/a", Body=b"x")
    assert ("ObjectCreated", "moved/a") in events(cloud, second.queue_url)


def test_a_dry_run_leaves_nothing(cloud: Cloud) -> None:
    change_set = cloud.stack.plan(cf.parameters(bucket=cloud.bucket, prefix=""))
    assert change_set is not None
    cloud.stack.discard(change_set)
    assert cloud.status() is None
    assert not cloud.has_bucket()
    assert cloud.lines == []


def test_a_dry_run_of_an_update_leaves_the_stack_as_it_is(cloud: Cloud) -> None:
    first = cloud.set_up()
    change_set = cloud.stack.plan(cf.parameters(bucket=cloud.bucket, prefix="status/"))
    assert change_set is not None
    assert "Modify AWS::S3::Bucket Bucket (replacement: Conditional)" in map(str, change_set.changes)
    cloud.stack.discard(change_set)
    assert cloud.status() == "CREATE_COMPLETE"
    assert cloud.stack.outputs() == first
    names = [row["ChangeSetId"] for row in cloud.cloudformation.list_change_sets(StackName=cloud.name)["Summaries"]]
    assert change_set.id not in names


# Beginning again after something went wrong


def test_a_first_try_that_was_interrupted_after_planning_is_taken_up(cloud: Cloud) -> None:
    abandoned = cloud.stack.plan(cf.parameters(bucket=cloud.bucket, prefix=""))
    assert abandoned is not None
    assert cloud.status() == "REVIEW_IN_PROGRESS"
    assert cloud.set_up() is not None
    assert cloud.status() == "CREATE_COMPLETE"


def test_planning_that_is_interrupted_leaves_nothing(cloud: Cloud) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    event = "before-call.cloudformation.DescribeChangeSet"
    cloud.cloudformation.meta.events.register_first(event, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            cloud.stack.plan(cf.parameters(bucket=cloud.bucket, prefix=""))
    finally:
        cloud.cloudformation.meta.events.unregister(event, interrupt)
    assert cloud.status() is None


def test_a_dry_run_beside_another_plan_leaves_that(cloud: Cloud) -> None:
    theirs = cloud.stack.plan(cf.parameters(bucket=cloud.bucket, prefix=""))
    mine = cloud.stack.plan(cf.parameters(bucket=cloud.bucket, prefix="status/"))
    assert theirs is not None
    assert mine is not None
    cloud.stack.discard(mine)
    assert cloud.status() == "REVIEW_IN_PROGRESS"
    assert cloud.cloudformation.describe_change_set(ChangeSetName=theirs.id)["Status"] == "CREATE_COMPLETE"


def test_what_a_failed_first_try_left_is_removed(cloud: Cloud) -> None:
    cloud.deploy(failing(**ours(cloud.bucket)), status="ROLLBACK_COMPLETE")
    with pytest.raises(ConfigurationError, match="ROLLBACK_COMPLETE") as caught:
        cloud.stack.plan(cf.parameters(bucket=cloud.bucket, prefix=""))
    assert "without --dry-run" in caught.value.hint
    assert cloud.set_up() is not None
    assert f"ROLLBACK_COMPLETE {cloud.name}: removing what the failed first try left" in cloud.lines
    assert cloud.status() == "CREATE_COMPLETE"


def test_a_failure_is_told_with_its_resource(cloud: Cloud) -> None:
    answer = cloud.cloudformation.create_change_set(
        StackName=cloud.name,
        ChangeSetName="theirs",
        ChangeSetType="CREATE",
        TemplateBody=json.dumps(failing(**ours(cloud.bucket))),
    )
    with pytest.raises(ConfigurationError, match=r"ROLLBACK_COMPLETE: AWS::Nowhere::Thing Nothing: .+Nowhere") as caught:
        cloud.stack.execute(ChangeSet(answer["Id"], answer["StackId"], creating=True))
    assert "run syncloud setup again" in caught.value.hint
    assert any(line.startswith("CREATE_FAILED AWS::Nowhere::Thing Nothing: ") for line in cloud.lines)


# What is refused


def test_a_stack_of_somebody_else_is_left_alone(cloud: Cloud) -> None:
    theirs = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    cloud.deploy(theirs, status="CREATE_COMPLETE")
    with pytest.raises(ConfigurationError, match="not made by syncloud setup"):
        cloud.stack.plan(cf.parameters(bucket=cloud.bucket, prefix=""))
    with pytest.raises(ConfigurationError, match="not made by syncloud setup"):
        cloud.stack.destroy(bucket=cloud.bucket)
    with pytest.raises(ConfigurationError, match="has no output"):
        cloud.stack.outputs()
    assert cloud.status() == "CREATE_COMPLETE"


def test_a_failed_stack_of_somebody_else_is_left_alone(cloud: Cloud) -> None:
    cloud.deploy(failing(), status="ROLLBACK_COMPLETE")
    with pytest.raises(ConfigurationError, match="not made by syncloud setup"):
        cloud.stack.settle()
    assert cloud.status() == "ROLLBACK_COMPLETE"


def test_what_somebody_added_to_the_template_is_not_taken_away(cloud: Cloud) -> None:
    text = cf.template_text().replace("Resources:\n", "Resources:\n  Topic:\n    Type: AWS::SNS::Topic\n", 1)
    parameters = [{"ParameterKey": "BucketName", "ParameterValue": cloud.bucket}]
    cloud.cloudformation.create_stack(StackName=cloud.name, TemplateBody=text, Parameters=parameters)
    cloud.stack.settle()
    with pytest.raises(ConfigurationError, match="would remove AWS::SNS::Topic Topic"):
        cloud.stack.plan(cf.parameters(bucket=cloud.bucket, prefix=""))
    assert cloud.cloudformation.list_change_sets(StackName=cloud.name)["Summaries"] == []


def test_a_stack_keeps_its_bucket(cloud: Cloud) -> None:
    cloud.set_up()
    with pytest.raises(ConfigurationError, match=f"belongs to the bucket {cloud.bucket}, not to other"):
        cloud.stack.plan(cf.parameters(bucket="other", prefix=""))
    with pytest.raises(ConfigurationError, match=f"belongs to the bucket {cloud.bucket}, not to other"):
        cloud.stack.destroy(bucket="other")


def test_a_bucket_that_exists_is_not_taken_over(cloud: Cloud) -> None:
    cloud.s3.create_bucket(Bucket=cloud.bucket)
    with pytest.raises(ConfigurationError, match="does not belong to the stack") as caught:
        cloud.stack.plan(cf.parameters(bucket=cloud.bucket, prefix=""))
    assert "Bring your own" in caught.value.hint
    assert cloud.status() is None


# Taking it down


def test_an_empty_stack_is_taken_down(cloud: Cloud) -> None:
    cloud.set_up()
    cloud.stack.destroy(bucket=cloud.bucket)
    assert cloud.status() is None
    assert cloud.lines[-1] == f"DELETE_COMPLETE AWS::CloudFormation::Stack {cloud.name}"
    assert cloud.stack.destroy(bucket=cloud.bucket) == []
    assert "nothing to take down" in cloud.lines[-1]


def test_a_plan_is_taken_down_unless_it_is_somebody_elses(cloud: Cloud) -> None:
    assert cloud.stack.plan(cf.parameters(bucket=cloud.bucket, prefix="")) is not None
    assert cloud.stack.destroy(bucket=cloud.bucket) == []
    assert cloud.status() is None
    template = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}})
    cloud.cloudformation.create_change_set(
        StackName=cloud.name, ChangeSetName="theirs", ChangeSetType="CREATE", TemplateBody=template
    )
    with pytest.raises(ConfigurationError, match="not by syncloud"):
        cloud.stack.destroy(bucket=cloud.bucket)
    assert cloud.status() == "REVIEW_IN_PROGRESS"


def test_an_object_version_or_a_delete_marker_keeps_the_stack(cloud: Cloud) -> None:
    cloud.set_up()
    version = cloud.s3.put_object(Bucket=cloud.bucket, Key="a", Body=b"x")["VersionId"]
    with pytest.raises(ConfigurationError, match="holds 1 object versions and 0 delete markers"):
        cloud.stack.destroy(bucket=cloud.bucket)
    marker = cloud.s3.delete_object(Bucket=cloud.bucket, Key="a")["VersionId"]
    with pytest.raises(ConfigurationError, match="holds 1 object versions and 1 delete markers"):
        cloud.stack.destroy(bucket=cloud.bucket)
    cloud.s3.delete_object(Bucket=cloud.bucket, Key="a", VersionId=version)
    with pytest.raises(ConfigurationError, match="holds 0 object versions and 1 delete markers") as caught:
        cloud.stack.destroy(bucket=cloud.bucket)
    assert "SETUP.md" in caught.value.hint
    assert cloud.status() == "CREATE_COMPLETE"
    cloud.s3.delete_object(Bucket=cloud.bucket, Key="a", VersionId=marker)
    cloud.stack.destroy(bucket=cloud.bucket)
    assert cloud.status() is None


# Answers that the emulator does not give

STACK_ID = "arn:aws:cloudformation:eu-central-1:111122223333:stack/s/0"


class Stubbed:
    """A stack whose clients answer what they are told to, in that order."""

    def __init__(self) -> None:
        made: list[Any] = [
            boto3.client(service, region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
            for service in ("cloudformation", "s3")
        ]
        self.cloudformation, self.s3 = map(Stubber, made)
        self.lines: list[str] = []
        self.stack = Stack(*made, name="s", report=self.lines.append, poll=0, patience=5)

    def describes(self, status: str, *, outputs: dict[str, str] | None = None) -> None:
        parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in ours("b").items()]
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
        """(status, type, physical id, reason), oldest first; what was told before is told again, newest first."""
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


@pytest.fixture
def stubbed() -> Iterator[Stubbed]:
    made = Stubbed()
    with made.cloudformation, made.s3:
        yield made
        made.cloudformation.assert_no_pending_responses()
        made.s3.assert_no_pending_responses()


OLD = ("CREATE_COMPLETE", "AWS::CloudFormation::Stack", STACK_ID, "")
PLAN = ChangeSet("arn:aws:cloudformation:eu-central-1:111122223333:changeSet/c/0", STACK_ID, creating=False)


def test_what_the_template_keeps_is_named_with_the_commands_that_remove_it(stubbed: Stubbed) -> None:
    stubbed.describes("CREATE_COMPLETE")
    stubbed.describes("CREATE_COMPLETE")
    bucket = {
        "LogicalResourceId": "Bucket",
        "PhysicalResourceId": "b",
        "ResourceType": "AWS::S3::Bucket",
        "ResourceStatus": "CREATE_COMPLETE",
        "LastUpdatedTimestamp": datetime.now(UTC),
    }
    stubbed.cloudformation.add_response("list_stack_resources", {"StackResourceSummaries": [bucket]})
    stubbed.s3.add_response("list_object_versions", {}, {"Bucket": "b", "ExpectedBucketOwner": "111122223333"})
    stubbed.tells(OLD)
    stubbed.cloudformation.add_response("delete_stack", {}, {"StackName": "s"})
    stubbed.tells(OLD, ("DELETE_IN_PROGRESS", "AWS::CloudFormation::Stack", STACK_ID, ""))
    stubbed.tells(
        OLD,
        ("DELETE_IN_PROGRESS", "AWS::CloudFormation::Stack", STACK_ID, ""),
        ("DELETE_SKIPPED", "AWS::SQS::Queue", "https://sqs.example/1/q", ""),
        ("DELETE_SKIPPED", "AWS::S3::Bucket", "b", ""),
        ("DELETE_COMPLETE", "AWS::CloudFormation::Stack", STACK_ID, ""),
    )
    assert stubbed.stack.destroy(bucket="b") == [
        "aws s3api delete-bucket --bucket b --region eu-central-1",
        "aws sqs delete-queue --queue-url https://sqs.example/1/q --region eu-central-1",
    ]


def test_more_versions_than_one_answer_holds_are_at_least_so_many(stubbed: Stubbed) -> None:
    stubbed.describes("CREATE_COMPLETE")
    stubbed.describes("CREATE_COMPLETE")
    rows = [{"Key": f"{number}", "VersionId": "v"} for number in range(1000)]
    bucket = {
        "LogicalResourceId": "Bucket",
        "PhysicalResourceId": "b",
        "ResourceType": "AWS::S3::Bucket",
        "ResourceStatus": "CREATE_COMPLETE",
        "LastUpdatedTimestamp": datetime.now(UTC),
    }
    stubbed.cloudformation.add_response("list_stack_resources", {"StackResourceSummaries": [bucket]})
    stubbed.s3.add_response("list_object_versions", {"Versions": rows, "IsTruncated": True})
    with pytest.raises(ConfigurationError, match="at least 1000 object versions"):
        stubbed.stack.destroy(bucket="b")


def test_the_first_failure_is_raised_not_what_was_called_off(stubbed: Stubbed) -> None:
    stubbed.tells(OLD)
    stubbed.cloudformation.add_response("execute_change_set", {})
    stubbed.tells(
        OLD,
        ("UPDATE_IN_PROGRESS", "AWS::CloudFormation::Stack", STACK_ID, ""),
        ("UPDATE_FAILED", "AWS::S3::Bucket", "b", "Resource update cancelled"),
        ("UPDATE_FAILED", "AWS::SQS::Queue", "q", "AccessDenied: not authorized to perform sqs:SetQueueAttributes"),
        ("UPDATE_ROLLBACK_IN_PROGRESS", "AWS::CloudFormation::Stack", STACK_ID, ""),
        ("UPDATE_FAILED", "AWS::IAM::ManagedPolicy", "p", "later"),
        ("UPDATE_ROLLBACK_COMPLETE", "AWS::CloudFormation::Stack", STACK_ID, ""),
    )
    with pytest.raises(PermissionRefused, match=r"UPDATE_ROLLBACK_COMPLETE: AWS::SQS::Queue Queue: AccessDenied"):
        stubbed.stack.execute(PLAN)


def test_a_stack_in_other_hands_is_busy_for_a_dry_run_and_waited_for_otherwise(stubbed: Stubbed) -> None:
    stubbed.describes("UPDATE_IN_PROGRESS")
    with pytest.raises(BusyError, match="UPDATE_IN_PROGRESS"):
        stubbed.stack.plan(cf.parameters(bucket="b", prefix=""))
    stubbed.describes("UPDATE_IN_PROGRESS")
    stubbed.tells(OLD)
    stubbed.describes("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
    stubbed.tells(OLD, ("UPDATE_COMPLETE", "AWS::SQS::Queue", "q", ""))
    stubbed.describes("UPDATE_COMPLETE")
    stubbed.tells(OLD, ("UPDATE_COMPLETE", "AWS::SQS::Queue", "q", ""))
    stubbed.stack.settle()
    assert stubbed.lines == [
        "UPDATE_IN_PROGRESS s: waiting for what is being done to it",
        "UPDATE_COMPLETE AWS::SQS::Queue Queue",
    ]


def test_somebody_who_comes_in_between_is_told_as_busy(stubbed: Stubbed) -> None:
    stubbed.tells(OLD)
    message = "Stack:arn is in UPDATE_IN_PROGRESS state and can not be updated."
    stubbed.cloudformation.add_client_error("execute_change_set", "ValidationError", message, 400)
    with pytest.raises(BusyError, match="UPDATE_IN_PROGRESS") as caught:
        stubbed.stack.execute(PLAN)
    assert "run the same command again" in caught.value.hint


def test_no_changes_in_the_words_of_a_stack_update_are_none_too(stubbed: Stubbed) -> None:
    stubbed.describes("UPDATE_COMPLETE")
    stubbed.cloudformation.add_response("get_template_summary", {"Parameters": [{"ParameterKey": "MaxReceiveCount"}]})
    values = [{"ParameterKey": key, "ParameterValue": value} for key, value in cf.parameters(bucket="b", prefix="").items()]
    kept = {"ParameterKey": "MaxReceiveCount", "UsePreviousValue": True}
    answer = {"Id": PLAN.id, "StackId": STACK_ID}
    expected: dict[str, Any] = {"StackName": "s", "ChangeSetType": "UPDATE", "Parameters": [*values, kept]}
    free = {"ChangeSetName": ANY, "TemplateBody": ANY, "Capabilities": ["CAPABILITY_IAM"]}
    stubbed.cloudformation.add_response("create_change_set", answer, expected | free)
    stubbed.cloudformation.add_response("describe_change_set", {"Status": "CREATE_PENDING"})
    failed = {"Status": "FAILED", "StatusReason": "No updates are to be performed."}
    stubbed.cloudformation.add_response("describe_change_set", failed)
    stubbed.cloudformation.add_response("delete_change_set", {}, {"ChangeSetName": PLAN.id})
    assert stubbed.stack.plan(cf.parameters(bucket="b", prefix="")) is None


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback --stack-name s"),
        ("DELETE_FAILED", "setup --destroy"),
        ("ROLLBACK_FAILED", "describe-stack-events --stack-name s"),
    ],
)
def test_a_stack_that_is_stuck_says_what_to_do(stubbed: Stubbed, status: str, hint: str) -> None:
    stubbed.describes(status)
    with pytest.raises(ConfigurationError, match=status) as caught:
        stubbed.stack.plan(cf.parameters(bucket="b", prefix=""))
    assert hint in caught.value.hint


def test_waiting_has_an_end(stubbed: Stubbed) -> None:
    stack = Stack(stubbed.cloudformation.client, stubbed.s3.client, name="s", report=print, poll=0.02, patience=0.01)
    stubbed.describes("CREATE_IN_PROGRESS")
    stubbed.tells()
    stubbed.describes("CREATE_IN_PROGRESS")
    stubbed.tells()
    with pytest.raises(Unavailable, match="not come to an end") as caught:
        stack.settle()
    assert "run the same command again" in caught.value.hint


@pytest.mark.parametrize(("code", "status"), [("403", 403), ("301", 301)])
def test_a_bucket_name_that_is_taken_elsewhere_is_told(stubbed: Stubbed, code: str, status: int) -> None:
    stubbed.cloudformation.add_client_error("describe_stacks", "ValidationError", "Stack with id s does not exist", 400)
    stubbed.s3.add_client_error("head_bucket", code, "Forbidden", status)
    with pytest.raises(ConfigurationError, match="there is a bucket b already"):
        stubbed.stack.plan(cf.parameters(bucket="b", prefix=""))


def test_a_refusal_of_cloudformation_is_one(stubbed: Stubbed) -> None:
    stubbed.cloudformation.add_client_error("describe_stacks", "AccessDenied", "User is not authorized", 403)
    with pytest.raises(PermissionRefused):
        stubbed.stack.outputs()


def test_a_value_that_cloudformation_refuses_is_a_matter_of_configuration(cloud: Cloud) -> None:
    with pytest.raises(ConfigurationError, match="creating a change set") as caught:
        cloud.stack.plan(cf.parameters(bucket=cloud.bucket, prefix="") | {"MaxReceiveCount": "often"})
    assert caught.value.exit_code == 78


# The configuration file

LINES = ["bucket = b", "queue-url = https://sqs/q"]


def test_a_configuration_is_written_for_the_group_to_read(tmp_path: Path) -> None:
    file = tmp_path / "jef.conf"
    before = os.umask(0o077)
    try:
        cf.write_config(file, LINES)
    finally:
        os.umask(before)
    assert file.read_text("utf-8") == "bucket = b\nqueue-url = https://sqs/q\n" + cf.advice("jef")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["jef", "team-a.jef", r"my\x20pictures"])
def test_a_configuration_offers_the_drop_ins_that_its_unit_may_need(tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.conf"
    cf.write_config(file, ["bucket = example", "queue-url = https://sqs/q"])
    offered = [line.removeprefix("#").strip() for line in file.read_text("utf-8").splitlines() if line.startswith("#")]
    assert f"systemctl enable --now syncloud-push@{name}" in offered
    assert {"ReadWritePaths=DIR", "User=NAME", "SupplementaryGroups=_syncloud", "RemoveIPC=no"} < set(offered)
    assert (r"StateDirectory=syncloud/my\\\\x20pictures" in offered) == ("\\" in name)
    invocation = parser.parse(["pull", "--config", str(file), "--directory", str(tmp_path)], {})
    assert (invocation.settings.bucket, invocation.settings.queue_url) == ("example", "https://sqs/q")


def test_a_configuration_that_says_the_same_is_well(tmp_path: Path) -> None:
    file = tmp_path / "jef.conf"
    cf.write_config(file, LINES)
    before = file.stat()
    cf.write_config(file, LINES)
    assert file.stat() == before


@pytest.mark.parametrize("content", [b"", b"bucket = other\n", b"\xff\xfe"])
def test_any_other_file_is_never_overwritten(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "jef.conf"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="never overwritten") as caught:
        cf.write_config(file, LINES)
    assert "another file" in caught.value.hint
    assert file.read_bytes() == content


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    link = tmp_path / "jef.conf"
    link.symlink_to(tmp_path / "target")
    with pytest.raises(ConfigurationError, match="never overwritten"):
        cf.write_config(link, LINES)
    assert not (tmp_path / "target").exists()


def test_a_place_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        cf.write_config(tmp_path / "none" / "jef.conf", LINES)
