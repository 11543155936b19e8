"""The template by itself is valid, protects the data, and grants no more than the code uses."""

from __future__ import annotations

from typing import Any

import pytest
from cfnlint.api import ManualArgs, lint  # type: ignore[import-untyped]  # it has no py.typed marker
from cfnlint.decode.cfn_yaml import loads  # type: ignore[import-untyped]  # the same

from syncloud import cf
from syncloud.errors import ConfigurationError

TEMPLATE: dict[str, Any] = loads(cf.template_text())
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
PUSH = {
    "s3:PutObject",
    "s3:GetObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListBucket",
}
PULL = {
    "s3:GetObject",
    "s3:ListBucket",
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibility",
}
OBJECTS = {"Fn::Sub": "arn:${AWS::Partition}:s3:::${BucketName}/${Prefix}*"}
BUCKET = {"Fn::Sub": "arn:${AWS::Partition}:s3:::${BucketName}"}


def properties(logical_id: str) -> dict[str, Any]:
    found: dict[str, Any] = RESOURCES[logical_id]["Properties"]
    return found


def statements(logical_id: str, *, kms: bool = False) -> list[dict[str, Any]]:
    """Statements of a policy, with or without a KMS key.

    Text that is conditional on the prefix stays as it is.
    """
    found = []
    for statement in properties(logical_id)["PolicyDocument"]["Statement"]:
        if "Fn::If" in statement:
            condition, then, _ = statement["Fn::If"]
            assert condition == "HasKmsKey"
            if kms:
                found.append(then)
        else:
            found.append(statement)
    return found


def actions(statement: dict[str, Any]) -> set[str]:
    named = statement["Action"]
    return {named} if isinstance(named, str) else set(named)


def test_cfn_lint_finds_nothing() -> None:
    found = lint(
        cf.template_text(),
        config=ManualArgs(regions=["us-east-1", "eu-central-1"], include_checks=["W", "I"]),
    )
    assert [str(match) for match in found] == []


def test_it_is_small_enough_to_be_sent_as_it_is() -> None:
    assert len(cf.template_text().encode()) <= 51_200


def test_every_parameter_but_the_bucket_has_a_default_and_all_are_described() -> None:
    assert [name for name, row in TEMPLATE["Parameters"].items() if "Default" not in row] == [
        "BucketName"
    ]
    assert all(row["Description"] for row in TEMPLATE["Parameters"].values())
    defaults = {
        name: row["Default"]
        for name, row in TEMPLATE["Parameters"].items()
        if isinstance(row.get("Default"), int)
    }
    assert defaults == {
        "NoncurrentVersionDays": 30,
        "QueueRetention": 14 * 24 * 3600,
        "VisibilityTimeout": 120,
        "MaxReceiveCount": 10,
    }


@pytest.mark.parametrize("logical_id", ["Bucket", "Queue", "DeadLetterQueue"])
def test_what_holds_data_outlives_the_stack(logical_id: str) -> None:
    assert RESOURCES[logical_id]["DeletionPolicy"] == "RetainExceptOnCreate"
    assert RESOURCES[logical_id]["UpdateReplacePolicy"] == "Retain"


def test_the_bucket_is_private_versioned_and_encrypted() -> None:
    bucket = properties("Bucket")
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    condition, with_key, without = rule["Fn::If"]
    assert condition == "HasKmsKey"
    assert with_key["ServerSideEncryptionByDefault"] == {
        "SSEAlgorithm": "aws:kms",
        "KMSMasterKeyID": {"Ref": "KmsKeyArn"},
    }
    assert without["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}


def test_the_lifecycle_never_touches_a_current_version() -> None:
    rules = properties("Bucket")["LifecycleConfiguration"]["Rules"]
    assert {key for rule in rules for key in rule} == {
        "Id",
        "Status",
        "AbortIncompleteMultipartUpload",
        "ExpiredObjectDeleteMarker",
        "NoncurrentVersionExpiration",
    }
    assert rules[0]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert rules[1]["NoncurrentVersionExpiration"] == {
        "NoncurrentDays": {"Ref": "NoncurrentVersionDays"}
    }


def test_the_queues_are_encrypted_and_messages_end_in_the_dead_letter_queue() -> None:
    for logical_id in ("Queue", "DeadLetterQueue"):
        queue = properties(logical_id)
        assert queue["SqsManagedSseEnabled"] == {
            "Fn::If": ["HasKmsKey", {"Ref": "AWS::NoValue"}, True]
        }
        assert queue["KmsMasterKeyId"] == {
            "Fn::If": ["HasKmsKey", {"Ref": "KmsKeyArn"}, {"Ref": "AWS::NoValue"}]
        }
    assert properties("Queue")["RedrivePolicy"] == {
        "deadLetterTargetArn": {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]},
        "maxReceiveCount": {"Ref": "MaxReceiveCount"},
    }
    assert properties("DeadLetterQueue")["MessageRetentionPeriod"] == 14 * 24 * 3600


def test_the_dead_letter_queue_takes_from_this_queue_alone() -> None:
    """The name is fixed, because otherwise each queue would wait for the other one to exist."""
    (name,) = {str(properties("Queue")["QueueName"])}
    allowed = properties("DeadLetterQueue")["RedriveAllowPolicy"]
    assert allowed["redrivePermission"] == "byQueue"
    (source,) = allowed["sourceQueueArns"]
    text, names = source["Fn::Sub"]
    assert text == "arn:${AWS::Partition}:sqs:${AWS::Region}:${AWS::AccountId}:syncloud-${Id}"
    assert name == str({"Fn::Sub": ["syncloud-${Id}", names]})


@pytest.mark.parametrize("logical_id", ["BucketPolicy", "QueuePolicy", "DeadLetterQueuePolicy"])
def test_nobody_gets_in_without_tls(logical_id: str) -> None:
    (denial,) = [statement for statement in statements(logical_id) if statement["Sid"] == "TlsOnly"]
    assert denial["Effect"] == "Deny"
    assert denial["Principal"] == "*"
    assert denial["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert actions(denial) <= {"s3:*", "sqs:*"}
    assert all(row["Effect"] == "Deny" for row in statements(logical_id) if row["Principal"] == "*")


def test_nobody_gets_to_the_bucket_with_an_old_tls() -> None:
    """TLS versions need a condition of their own.

    A request without TLS has no version, and no number is less than an absent one.
    """
    (denial,) = [
        statement for statement in statements("BucketPolicy") if statement["Sid"] == "NoOldTls"
    ]
    (plain,) = [
        statement for statement in statements("BucketPolicy") if statement["Sid"] == "TlsOnly"
    ]
    assert denial["Condition"] == {"NumericLessThan": {"s3:TlsVersion": "1.2"}}
    assert {key: denial[key] for key in ("Effect", "Principal", "Action", "Resource")} == {
        key: plain[key] for key in ("Effect", "Principal", "Action", "Resource")
    }


@pytest.mark.parametrize("logical_id", ["PushPolicy", "PullPolicy"])
def test_a_bucket_of_the_same_name_in_another_account_is_not_ours(logical_id: str) -> None:
    """The ARN of a bucket names no account.

    A new owner of a removed bucket's name would get the uploads of push.
    """
    of_the_bucket = [
        statement
        for statement in statements(logical_id)
        if statement["Resource"] in (BUCKET, OBJECTS)
    ]
    assert {statement["Sid"] for statement in of_the_bucket} == {"Objects", "List"}
    for statement in of_the_bucket:
        branches = statement["Condition"].get("Fn::If", [None, statement["Condition"]])[1:]
        for branch in branches:
            assert branch["StringEquals"] == {"aws:ResourceAccount": {"Ref": "AWS::AccountId"}}


def test_only_this_bucket_of_this_account_may_send() -> None:
    (grant,) = [
        statement for statement in statements("QueuePolicy") if statement["Effect"] == "Allow"
    ]
    assert grant["Principal"] == {"Service": "s3.amazonaws.com"}
    assert grant["Action"] == "sqs:SendMessage"
    assert grant["Resource"] == {"Fn::GetAtt": ["Queue", "Arn"]}
    assert grant["Condition"] == {
        "ArnEquals": {"aws:SourceArn": BUCKET},
        "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}},
    }
    others = {
        row["Effect"]
        for logical_id in ("BucketPolicy", "DeadLetterQueuePolicy")
        for row in statements(logical_id)
    }
    assert others == {"Deny"}, "they grant nothing"


def test_the_bucket_comes_after_the_policy_that_s3_checks() -> None:
    assert RESOURCES["Bucket"]["DependsOn"] == "QueuePolicy"
    assert "Bucket" not in str(statements("QueuePolicy")).replace("BucketName", "").replace(
        "EventsOfThisBucket", ""
    )


def test_events_are_filtered_by_the_prefix() -> None:
    events = properties("Bucket")["NotificationConfiguration"]["QueueConfigurations"]
    assert [row["Event"] for row in events] == [
        "s3:ObjectCreated:*",
        "s3:ObjectRemoved:*",
        "s3:LifecycleExpiration:DeleteMarkerCreated",
    ]
    for row in events:
        condition, then, _ = row["Filter"]["Fn::If"]
        assert condition == "HasPrefix"
        assert then["S3Key"]["Rules"] == [
            {
                "Name": "prefix",
                "Value": {
                    "Fn::If": ["HasFilterPrefix", {"Ref": "FilterPrefix"}, {"Ref": "Prefix"}]
                },
            }
        ]


@pytest.mark.parametrize(("logical_id", "rights"), [("PushPolicy", PUSH), ("PullPolicy", PULL)])
def test_the_roles_have_the_rights_that_the_code_uses(logical_id: str, rights: set[str]) -> None:
    granted = statements(logical_id)
    assert {statement["Effect"] for statement in granted} == {"Allow"}
    assert set().union(*map(actions, granted)) == rights
    for statement in granted:
        if statement["Sid"] == "Objects":
            assert statement["Resource"] == OBJECTS
        elif statement["Sid"] == "Events":
            assert statement["Resource"] == {"Fn::GetAtt": ["Queue", "Arn"]}
        else:
            assert statement["Resource"] == BUCKET


@pytest.mark.parametrize("logical_id", ["PushPolicy", "PullPolicy"])
def test_the_roles_list_nothing_outside_the_prefix(logical_id: str) -> None:
    (listing,) = [
        statement for statement in statements(logical_id) if "s3:ListBucket" in actions(statement)
    ]
    assert actions(listing) == {"s3:ListBucket"}
    condition, then, otherwise = listing["Condition"]["Fn::If"]
    assert condition == "HasPrefix"
    assert then["StringLike"] == {"s3:prefix": {"Fn::Sub": "${Prefix}*"}}
    assert set(then) == {"StringLike", "StringEquals"}
    assert set(otherwise) == {"StringEquals"}


@pytest.mark.parametrize(
    ("logical_id", "rights"),
    [("PushPolicy", {"kms:Decrypt", "kms:GenerateDataKey"}), ("PullPolicy", {"kms:Decrypt"})],
)
def test_a_kms_key_adds_that_key_alone(logical_id: str, rights: set[str]) -> None:
    without = statements(logical_id)
    (added,) = [
        statement for statement in statements(logical_id, kms=True) if statement not in without
    ]
    assert actions(added) == rights
    assert added["Resource"] == {"Ref": "KmsKeyArn"}
    assert set(added["Condition"]["StringLike"]) == {"kms:ViaService"}


@pytest.mark.parametrize(
    ("prefix", "encoded"),
    [
        ("", ""),
        ("status/", ""),
        ("a-b_c.d/E9/", ""),
        ("two words/", "two+words/"),
        ("day=1/a+b/", "day%3D1/a%2Bb/"),
        ("straße/", "stra%C3%9Fe/"),
    ],
)
def test_a_filter_that_needs_it_is_encoded(prefix: str, encoded: str) -> None:
    assert cf.parameters(bucket="b", prefix=prefix) == {
        "BucketName": "b",
        "Prefix": prefix,
        "FilterPrefix": encoded,
    }


@pytest.mark.parametrize("prefix", ["a*/", "what?/", "${aws:username}/", "тест/", "a\nb/"])
def test_a_prefix_that_a_policy_cannot_name_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="IAM policy") as caught:
        cf.parameters(bucket="b", prefix=prefix)
    assert "SETUP.md" in caught.value.hint


def test_the_outputs_are_told_as_configuration() -> None:
    outputs = cf.Outputs(
        "b", "status/", "https://sqs/q", "https://sqs/d", "eu-central-1", "arn:push", "arn:pull"
    )
    assert cf.configuration_lines(outputs) == [
        "bucket = b",
        "prefix = status/",
        "queue-url = https://sqs/q",
        "region = eu-central-1",
    ]
    whole = cf.Outputs(
        "b", "", "https://sqs/q", "https://sqs/d", "eu-central-1", "arn:push", "arn:pull"
    )
    assert len(cf.configuration_lines(whole)) == 3
