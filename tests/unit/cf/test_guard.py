"""The guard of a stack refuses each step that would lose data or touch somebody else's stack."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from syncloud import cf
from syncloud.errors import ConfigurationError
from tests.support.stacks import Cloud, Stubbed, failing


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
    text = cf.template_text().replace(
        "Resources:\n", "Resources:\n  Topic:\n    Type: AWS::SNS::Topic\n", 1
    )
    parameters = [{"ParameterKey": "BucketName", "ParameterValue": cloud.bucket}]
    cloud.cloudformation.create_stack(
        StackName=cloud.name, TemplateBody=text, Parameters=parameters
    )
    cloud.stack.settle()
    with pytest.raises(ConfigurationError, match="would remove AWS::SNS::Topic Topic"):
        cloud.stack.plan(cf.parameters(bucket=cloud.bucket, prefix=""))
    assert cloud.cloudformation.list_change_sets(StackName=cloud.name)["Summaries"] == []


def test_a_stack_keeps_its_bucket(cloud: Cloud) -> None:
    cloud.set_up()
    with pytest.raises(
        ConfigurationError, match=f"belongs to the bucket {cloud.bucket}, not to other"
    ):
        cloud.stack.plan(cf.parameters(bucket="other", prefix=""))
    with pytest.raises(
        ConfigurationError, match=f"belongs to the bucket {cloud.bucket}, not to other"
    ):
        cloud.stack.destroy(bucket="other")


def test_a_bucket_that_exists_is_not_taken_over(cloud: Cloud) -> None:
    cloud.s3.create_bucket(Bucket=cloud.bucket)
    with pytest.raises(ConfigurationError, match="does not belong to the stack") as caught:
        cloud.stack.plan(cf.parameters(bucket=cloud.bucket, prefix=""))
    assert "Bring your own" in caught.value.hint
    assert cloud.status() is None


def test_an_object_version_or_a_delete_marker_keeps_the_stack(cloud: Cloud) -> None:
    cloud.set_up()
    version = cloud.s3.put_object(Bucket=cloud.bucket, Key="a", Body=b"x")["VersionId"]
    with pytest.raises(ConfigurationError, match="holds 1 object versions and 0 delete markers"):
        cloud.stack.destroy(bucket=cloud.bucket)
    marker = cloud.s3.delete_object(Bucket=cloud.bucket, Key="a")["VersionId"]
    with pytest.raises(ConfigurationError, match="holds 1 object versions and 1 delete markers"):
        cloud.stack.destroy(bucket=cloud.bucket)
    cloud.s3.delete_object(Bucket=cloud.bucket, Key="a", VersionId=version)
    with pytest.raises(
        ConfigurationError, match="holds 0 object versions and 1 delete markers"
    ) as caught:
        cloud.stack.destroy(bucket=cloud.bucket)
    assert "SETUP.md" in caught.value.hint
    assert cloud.status() == "CREATE_COMPLETE"
    cloud.s3.delete_object(Bucket=cloud.bucket, Key="a", VersionId=marker)
    cloud.stack.destroy(bucket=cloud.bucket)
    assert cloud.status() is None


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
    stubbed.cloudformation.add_response(
        "list_stack_resources", {"StackResourceSummaries": [bucket]}
    )
    stubbed.s3.add_response("list_object_versions", {"Versions": rows, "IsTruncated": True})
    with pytest.raises(ConfigurationError, match="at least 1000 object versions"):
        stubbed.stack.destroy(bucket="b")


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


@pytest.mark.parametrize(("code", "status"), [("403", 403), ("301", 301)])
def test_a_bucket_name_that_is_taken_elsewhere_is_told(
    stubbed: Stubbed, code: str, status: int
) -> None:
    stubbed.cloudformation.add_client_error(
        "describe_stacks", "ValidationError", "Stack with id s does not exist", 400
    )
    stubbed.s3.add_client_error("head_bucket", code, "Forbidden", status)
    with pytest.raises(ConfigurationError, match="there is a bucket b already"):
        stubbed.stack.plan(cf.parameters(bucket="b", prefix=""))
