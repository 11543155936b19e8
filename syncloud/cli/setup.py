"""The command `setup`: a CloudFormation stack with bucket, queue, their wiring and the policies."""

from __future__ import annotations

from .. import cf, log
from ..aws.session import Aws
from ..cf.stack import Stack
from ..config.settings import Invocation, Settings
from ..service.configuration import start_log
from .output import show


def run(invocation: Invocation) -> int:
    """Deploy, show or destroy the stack, or print the template; return the exit code."""
    if invocation.print_template:
        show(cf.template_text().rstrip())
        return 0
    start_log(invocation.settings, "setup")
    stack = _stack(invocation.settings)
    if invocation.destroy:
        for command in stack.destroy(bucket=invocation.settings.bucket):
            show(command)
    elif invocation.dry_run:
        _show(stack, invocation.settings)
    else:
        _deploy(stack, invocation.settings)
    return 0


def _stack(settings: Settings) -> Stack:
    aws = Aws(region=settings.region, profile=settings.profile, endpoint_url=settings.endpoint_url)
    formation, s3 = aws.client("cloudformation"), aws.client("s3")
    return Stack(formation, s3, name=settings.stack_name, report=_report)


def _report(line: str) -> None:
    log.info("setup.progress", "%s", line)


def _show(stack: Stack, settings: Settings) -> None:
    """Print the changes of a deployment, and change nothing."""
    change_set = stack.plan(_parameters(settings))
    if change_set is not None:
        for change in change_set.changes:
            show(str(change))
        stack.discard(change_set)


def _deploy(stack: Stack, settings: Settings) -> None:
    """Execute a change set, and write and print the configuration for push and pull."""
    stack.settle()
    change_set = stack.plan(_parameters(settings))
    if change_set is None:
        _report("nothing has changed")
    outputs = stack.outputs() if change_set is None else stack.execute(change_set)
    lines = cf.configuration_lines(outputs)
    if settings.write_config is not None:
        cf.write_config(settings.write_config, lines)
    for line in lines:
        show(line)


def _parameters(settings: Settings) -> dict[str, str]:
    return cf.parameters(bucket=settings.bucket, prefix=settings.prefix)
