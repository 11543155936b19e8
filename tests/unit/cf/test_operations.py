"""Each call to CloudFormation: its failure translated, its end awaited, the first cause kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.stub import ANY

from syncloud import cf
from syncloud.cf.operations import ChangeSet
from syncloud.cf.stack import Stack
from syncloud.errors import BusyError, ConfigurationError, PermissionRefused, Unavailable
from tests.support.stacks import OLD, PLAN, STACK_ID, Cloud, Stubbed, failing, ours


def test_a_failure_is_told_with_its_resource(cloud: Cloud) -> None:
    answer = cloud.cloudformation.create_change_set(
        StackName=cloud.name,
        ChangeSetName="theirs",
        ChangeSetType="CREATE",
        TemplateBody=json.dumps(failing(**ours(cloud.bucket))),
    )
    with pytest.raises(
        ConfigurationError, match=r"ROLLBACK_COMPLETE: AWS::Nowhere::Thing Nothing: .+Nowhere"
    ) as caught:
        cloud.stack.execute(ChangeSet(answer["Id"], answer["StackId"], creating=True))
    assert "run syncloud setup again" in caught.value.hint
    assert any(
        line.startswith("CREATE_FAILED AWS::Nowhere::Thing Nothing: ") for line in cloud.lines
    )


def test_the_first_failure_is_raised_not_what_was_called_off(stubbed: Stubbed) -> None:
    stubbed.tells(OLD)
    stubbed.cloudformation.add_response("execute_change_set", {})
    stubbed.tells(
        OLD,
        ("UPDATE_IN_PROGRESS", "AWS::CloudFormation::Stack", STACK_ID, ""),
        ("UPDATE_FAILED", "AWS::S3::Bucket", "b", "Resource update cancelled"),
        (
            "UPDATE_FAILED",
            "AWS::SQS::Queue",
            "q",
            "AccessDenied: not authorized to perform sqs:SetQueueAttributes",
        ),
        ("UPDATE_ROLLBACK_IN_PROGRESS", "AWS::CloudFormation::Stack", STACK_ID, ""),
        ("UPDATE_FAILED", "AWS::IAM::ManagedPolicy", "p", "later"),
        ("UPDATE_ROLLBACK_COMPLETE", "AWS::CloudFormation::Stack", STACK_ID, ""),
    )
    with pytest.raises(
        PermissionRefused, match=r"UPDATE_ROLLBACK_COMPLETE: AWS::SQS::Queue Queue: AccessDenied"
    ):
        stubbed.stack.execute(PLAN)


def test_somebody_who_comes_in_between_is_told_as_busy(stubbed: Stubbed) -> None:
    stubbed.tells(OLD)
    message = "Stack:arn is in UPDATE_IN_PROGRESS state and can not be updated."
    stubbed.cloudformation.add_client_error("execute_change_set", "ValidationError", message, 400)
    with pytest.raises(BusyError, match="UPDATE_IN_PROGRESS") as caught:
        stubbed.stack.execute(PLAN)
    assert "run the same command again" in caught.value.hint


def test_no_changes_in_the_words_of_a_stack_update_are_none_too(stubbed: Stubbed) -> None:
    stubbed.describes("UPDATE_COMPLETE")
    stubbed.cloudformation.add_response(
        "get_template_summary", {"Parameters": [{"ParameterKey": "MaxReceiveCount"}]}
    )
    values = [
        {"ParameterKey": key, "ParameterValue": value}
        for key, value in cf.parameters(bucket="b", prefix="").items()
    ]
    kept = {"ParameterKey": "MaxReceiveCount", "UsePreviousValue": True}
    answer = {"Id": PLAN.id, "StackId": STACK_ID}
    expected: dict[str, Any] = {
        "StackName": "s",
        "ChangeSetType": "UPDATE",
        "Parameters": [*values, kept],
    }
    free = {"ChangeSetName": ANY, "TemplateBody": ANY, "Capabilities": ["CAPABILITY_IAM"]}
    stubbed.cloudformation.add_response("create_change_set", answer, expected | free)
    stubbed.cloudformation.add_response("describe_change_set", {"Status": "CREATE_PENDING"})
    failed = {"Status": "FAILED", "StatusReason": "No updates are to be performed."}
    stubbed.cloudformation.add_response("describe_change_set", failed)
    stubbed.cloudformation.add_response("delete_change_set", {}, {"ChangeSetName": PLAN.id})
    assert stubbed.stack.plan(cf.parameters(bucket="b", prefix="")) is None


def test_waiting_has_an_end(stubbed: Stubbed) -> None:
    stack = Stack(
        stubbed.cloudformation.client,
        stubbed.s3.client,
        name="s",
        report=print,
        poll=0.02,
        patience=0.01,
    )
    stubbed.describes("CREATE_IN_PROGRESS")
    stubbed.tells()
    stubbed.describes("CREATE_IN_PROGRESS")
    stubbed.tells()
    with pytest.raises(Unavailable, match="has not ended within") as caught:
        stack.settle()
    assert "run the same command again" in caught.value.hint


def test_a_refusal_of_cloudformation_is_one(stubbed: Stubbed) -> None:
    stubbed.cloudformation.add_client_error(
        "describe_stacks", "AccessDenied", "User is not authorized", 403
    )
    with pytest.raises(PermissionRefused):
        stubbed.stack.outputs()


def test_a_value_that_cloudformation_refuses_is_a_matter_of_configuration(cloud: Cloud) -> None:
    with pytest.raises(ConfigurationError, match="creating a change set") as caught:
        cloud.stack.plan(
            cf.parameters(bucket=cloud.bucket, prefix="") | {"MaxReceiveCount": "often"}
        )
    assert caught.value.exit_code == 78
