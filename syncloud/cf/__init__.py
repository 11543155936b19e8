"""The CloudFormation deployment: template, stack, and the configuration from its outputs."""

from __future__ import annotations

from .config_file import advice, configuration_lines, write_config
from .template import Outputs, parameters, template_text

__all__ = [
    "Outputs",
    "advice",
    "configuration_lines",
    "parameters",
    "template_text",
    "write_config",
]
