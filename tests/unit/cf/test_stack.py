"""The stack, deployed for real into the emulator.

A stub is slow or refuses, because the emulator never does.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from urllib.parse import unquote_plus

import pytest

from syncloud import cf
from syncloud.errors import BusyError, ConfigurationError
from tests.support.stacks import OLD, STACK_ID, Cloud, Stubbed, failing, ours

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
    assert sorted(events(cloud, made.queue_url)) == [
        ("ObjectCreated", "status/a b"),
        ("ObjectRemoved", "status/a b"),
    ]


def test_without_a_prefix_everything_arrives(cloud: Cloud) -> None:
    made = cloud.set_up()
    assert made is not None
    assert made.prefix == ""
    cloud.s3.put_object(Bucket=made.bucket, Key="top", Body=b"x")
    assert events(cloud, made.queue_url) == [("ObjectCreated", "top")]


def events(cloud: Cloud, queue_url: str) -> list[tuple[str, str]]:
    """Family and key of all messages in the queue; the first test event of S3 is skipped."""
    found: list[tuple[str, str]] = []
    while messages := cloud.sqs.receive_message(
        QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=1
    ).get("Messages"):
        for message in messages:
            records = json.loads(message["Body"]).get("Records", [])
            found += [
                (record["eventName"].partition(":")[0], unquote_plus(record["s3"]["object"]["key"]))
                for record in records
            ]
    return found


def test_the_settings_reach_queue_and_policies(cloud: Cloud) -> None:
    made = cloud.set_up(prefix="status/")
    assert made is not None
    for arn in (
        made.push_policy_arn,
        made.pull_policy_arn,
    ):  # the emulator does not give their documents back
        assert cloud.iam.get_policy(PolicyArn=arn)["Policy"]["IsAttachable"]
    attributes = cloud.sqs.get_queue_attributes(QueueUrl=made.queue_url, AttributeNames=["All"])[
        "Attributes"
    ]
    assert (attributes["MessageRetentionPeriod"], attributes["VisibilityTimeout"]) == (
        "1209600",
        "120",
    )
    grant, denial = json.loads(attributes["Policy"])["Statement"]
    assert grant["Condition"] == {
        "ArnEquals": {"aws:SourceArn": f"arn:aws:s3:::{cloud.bucket}"},
        "StringEquals": {"aws:SourceAccount": "000000000000"},
    }
    assert grant["Resource"] == denial["Resource"] == attributes["QueueArn"]
    (stack,) = cloud.cloudformation.describe_stacks(StackName=cloud.name)["Stacks"]
    assert (
        attributes["QueueArn"]
        == f"arn:aws:sqs:us-east-1:000000000000:syncloud-{stack['StackId'].rpartition('/')[2]}"
    )


def test_a_prefix_that_needs_it_is_encoded_in_the_filter(cloud: Cloud) -> None:
    cloud.set_up(prefix="day=1/two words/")
    rows = cloud.s3.get_bucket_notification_configuration(Bucket=cloud.bucket)[
        "QueueConfigurations"
    ]
    assert {row["Filter"]["Key"]["FilterRules"][0]["Value"] for row in rows} == {
        "day%3D1/two+words/"
    }


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
    assert "Modify AWS::S3::Bucket Bucket (replacement: Conditional)" in map(
        str, change_set.changes
    )
    cloud.stack.discard(change_set)
    assert cloud.status() == "CREATE_COMPLETE"
    assert cloud.stack.outputs() == first
    names = [
        row["ChangeSetId"]
        for row in cloud.cloudformation.list_change_sets(StackName=cloud.name)["Summaries"]
    ]
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
    assert (
        cloud.cloudformation.describe_change_set(ChangeSetName=theirs.id)["Status"]
        == "CREATE_COMPLETE"
    )


def test_what_a_failed_first_try_left_is_removed(cloud: Cloud) -> None:
    cloud.deploy(failing(**ours(cloud.bucket)), status="ROLLBACK_COMPLETE")
    with pytest.raises(ConfigurationError, match="ROLLBACK_COMPLETE") as caught:
        cloud.stack.plan(cf.parameters(bucket=cloud.bucket, prefix=""))
    assert "without --dry-run" in caught.value.hint
    assert cloud.set_up() is not None
    assert (
        f"ROLLBACK_COMPLETE {cloud.name}: deleting the remains of a failed creation" in cloud.lines
    )
    assert cloud.status() == "CREATE_COMPLETE"


# Taking it down


def test_an_empty_stack_is_taken_down(cloud: Cloud) -> None:
    cloud.set_up()
    cloud.stack.destroy(bucket=cloud.bucket)
    assert cloud.status() is None
    assert cloud.lines[-1] == f"DELETE_COMPLETE AWS::CloudFormation::Stack {cloud.name}"
    assert cloud.stack.destroy(bucket=cloud.bucket) == []
    assert "nothing to delete" in cloud.lines[-1]


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


# Answers that the emulator does not give


def test_what_the_template_keeps_is_named_with_the_commands_that_remove_it(
    stubbed: Stubbed,
) -> None:
    stubbed.describes("CREATE_COMPLETE")
    stubbed.describes("CREATE_COMPLETE")
    bucket = {
        "LogicalResourceId": "Bucket",
        "PhysicalResourceId": "b",
        "ResourceType": "AWS::S3::Bucket",
        "ResourceStatus": "CREATE_COMPLETE",
        "LastUpdatedTimestamp": datetime.now(UTC),
    }
    stubbed.cloudformation.add_response(
        "list_stack_resources", {"StackResourceSummaries": [bucket]}
    )
    stubbed.s3.add_response(
        "list_object_versions", {}, {"Bucket": "b", "ExpectedBucketOwner": "111122223333"}
    )
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


def test_a_stack_in_other_hands_is_busy_for_a_dry_run_and_waited_for_otherwise(
    stubbed: Stubbed,
) -> None:
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
        "UPDATE_IN_PROGRESS s: waiting for the running operation",
        "UPDATE_COMPLETE AWS::SQS::Queue Queue",
    ]
