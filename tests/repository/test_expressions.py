"""The package's regular expressions take linear time, whatever names, files and answers hold."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[2] / "syncloud"
LONG = 1_000_000
"""Characters. An expression that goes back for each of them needs hours."""

METHODS = frozenset({"match", "fullmatch", "search", "findall", "finditer", "sub", "subn", "split"})
HANDED_ON = {"like": "fullmatch"}
"""Functions that have an expression as their first argument, and what they do with it."""

MADE = {
    ("config.values", "pattern"): "the argument of like, whose calls are in the table",
    (
        "core.patterns",
        "''.join((f'[{one}]' for one in sets))",
    ): "nothing but brackets, so it has one length",
}
"""Expressions that code builds, and why none of them backtracks.

`test_no_name_holds_a_match_up` tries those of patterns.
"""

PROXY = r"https?://([^/@]*@)?(\[[0-9A-Fa-f:.]+\]|[^/:@\s]+)(:[0-9]+)?/?"
CONFLICT = r"\.conflict-\d{8}T\d{6}Z-[A-Za-z0-9_-]+?(?:-\d+)?(?=\.|\Z)"
SECRET_KEY = r"(?! )[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,1024}(?<! )"
AUTHORIZATION = r"""(authorization(?:\\?["']?\s{0,4}[:=]|\\?["'],)\s{0,4}b?\\?["']?)[^\r\n"'\\]+"""
NAMED = (
    r"""((?:signature|x-amz-credential|secret_?access_?key|(?:security|session)[_-]?token)"""
    r"""(?:\\?["']?\s{0,4}(?:[:=>]|%3D)|\\?["'],)\s{0,4}b?\\?["']?)[^\s"'\\<>&,;)}]+"""
)
MARK = ".conflict-20261122T030405Z-"

HARD: dict[tuple[str, str], list[tuple[str, str, str]]] = {
    ("aws.session", PROXY): [
        ("http://", "a", " "),
        ("http://", "a", "@ "),
        ("http://[", ":", ""),
        ("http://a:", "1", "x"),
        ("http://", "a@", ""),
    ],
    ("aws.session", r"https?://[a-z0-9.-]+(:[0-9]{1,5})?/?"): [
        ("https://", "a", ":"),
        ("https://", "a:1", ""),
    ],
    ("aws.session", r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"): [
        ("", "a", ""),
        ("", "-", ""),
        ("", "a-", "-"),
    ],
    ("aws.session", r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"): [("", "a", "-"), ("", "a-", "")],
    ("cf.operations", r"didn't contain changes|no updates are to be performed"): [
        ("", "didn't contain change", "")
    ],
    ("cf.operations", r"access ?denied|not authorized|forbidden"): [
        ("", "access ", ""),
        ("", "not authorize", ""),
    ],
    (
        "cf.operations",
        (
            r"_IN_PROGRESS (state|status)|InvalidChangeSetStatus|OperationInProgress"
            r"|AlreadyExistsException"
        ),
    ): [("", "_IN_PROGRESS stat", ""), ("", "InvalidChangeSetStatu", "")],
    ("aws.credentials", r"[\x21-\x7e]{1,1024}"): [("", "a", ""), ("", "a", "\n")],
    ("aws.credentials", r"[\x21-\x7e]{1,16384}"): [("", "a", ""), ("", "a", "\n")],
    ("aws.credentials", SECRET_KEY): [("", "a", " "), ("", " ", ""), ("a", " ", "a")],
    ("core.fields", r'(?:W/)?"([\x21\x23-\x7e]{1,256})"|([\x21\x23-\x7e]{1,256})'): [
        ('W/"', "a", '"'),
        ('"', "a", ""),
        ("", "W/", ""),
        ("", '"a', ""),
    ],
    ("core.fields", r"[\x21-\x7e]{1,1024}"): [("", "a", ""), ("", "a", "\n")],
    ("core.fields", r"[0-9A-Fa-f]{1,128}"): [("", "A", ""), ("", "A", "x")],
    ("core.fields", r"[\x21-\x7e]{1,255}"): [("", "a", ""), ("", "a", "\n")],
    ("core.fields", r"[\x20-\x7e]{1,128}"): [("", " ", ""), ("", "a", "\n")],
    ("core.fields", r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}"): [
        ("", "1", ""),
        ("", "1.", ""),
        ("", "1.1", "x"),
    ],
    ("core.fields", r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]"): [("", "a", ""), ("", "a", "\n")],
    ("core.names", r"\.syncloud-(?:tmp|old|probe)-[0-9a-f]{16}-[0-9a-f]{16}\Z"): [
        (".syncloud-tmp-", "0", ""),
        ("", ".syncloud-tmp-", ""),
    ],
    ("core.names", CONFLICT): [
        (MARK, "a", "\n"),
        (MARK, "-1", "\n"),
        (MARK, "1", "\n"),
        (MARK, "-", "\n"),
        ("", MARK, "\n"),
        ("", ".conflict-", ""),
    ],
    ("core.names", r"[^A-Za-z0-9_-]"): [("", ".", ""), ("", "a", "")],
    ("s3.objects", r"(-?)(\d{1,11})(?:\.(\d{1,9})\d*)?\Z"): [
        ("", "1", ""),
        ("1.", "1", "x"),
        ("", "1.", ""),
    ],
    ("s3.objects", r"[0-7]{3,7}\Z"): [("", "1", ""), ("", "1", "x")],
    ("config.options", r"arn:\S+|[A-Za-z0-9][A-Za-z0-9._-]{1,254}"): [
        ("arn:", "a", " "),
        ("", "a", ""),
    ],
    ("config.options", r"[A-Za-z][A-Za-z0-9-]{0,127}"): [("", "a", "")],
    ("config.options", r"https?://[^\s/]\S*"): [("https://", "a", " "), ("https://", "a/", " ")],
    ("config.options", r"[0-9]{12}"): [("", "1", "")],
    ("config.options", r"[a-z0-9-]+"): [("", "a", ".")],
    ("config.options", r"[\x00-\x1f\x7f]"): [("", "a", "")],
    ("config.values", r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d|)"): [
        ("", "1", ""),
        ("1.", "1", ""),
        ("1", "m", ""),
    ],
    ("config.values", r"[0-9]{1,9}"): [("", "1", "")],
    ("config.values", r"(?![-])[A-Za-z0-9_.\\@-]{1,200}"): [("", "a", ""), ("", "-", "")],
    ("config.settings", r"[^A-Za-z0-9-]"): [("", ".", ""), ("", "a", "")],
    ("config.settings", r"[^A-Za-z0-9_.-]"): [("", "/", ""), ("", "a", "")],
    ("errors", AUTHORIZATION): [
        ("", "authorization", ""),
        ("authorization: ", "a", ""),
        ("", "authorization: a\n", ""),
        ("authorization", " ", ""),
    ],
    ("errors", NAMED): [
        ("", "signature", ""),
        ("signature=", "a", ""),
        ("", "signature=", ""),
        ("session_token", " ", ""),
    ],
    ("errors", r"""(://[^/\s:@"']{0,256}:)[^/\s@"']{1,256}@"""): [
        ("://", "a", ""),
        ("://a:", "a", ""),
        ("", "://a:", ""),
        ("", "://", "@"),
        ("://", "a:", ""),
    ],
    ("aws.error_mapping", r"(\d+) \((\w+)\): (.*)"): [
        ("", "1", ""),
        ("1 (", "a", ""),
        ("1 (", "a", ") "),
        ("1 (a): ", "1 (a): ", ""),
    ],
    ("aws.error_mapping", r"[a-z0-9-]{1,63}"): [("", "a", "")],
    ("aws.error_mapping", r"s3://[^/\s]+|https?://\S+"): [
        ("", "s3://", ""),
        ("", "http://", ""),
        ("", "http:/", ""),
    ],
    ("aws.error_mapping", r"\b[a-z]{2,4}(?:-[a-z]{1,16}){1,3}-\d\b"): [
        ("", "aa-", ""),
        ("aa", "-a", ""),
        ("aa-", "a", ""),
        ("", "aa-aa-a-1a-", ""),
    ],
}
"""Texts that are hard for each module's expressions.

Each text has a beginning, a repeated part and an end.
"""


class Expression(NamedTuple):
    module: str
    text: str
    methods: frozenset[str]


def expressions() -> Iterator[Expression]:
    """Of the package, but for those that are made."""
    for file in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(file.read_text("utf-8"))
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and (methods := applied(tree, node))
                and (module, ast.unparse(node.args[0])) not in MADE
            ):
                names = vars(importlib.import_module(f"syncloud.{module}"))
                yield Expression(module, eval(ast.unparse(node.args[0]), dict(names)), methods)


def applied(tree: ast.Module, call: ast.Call) -> frozenset[str]:
    """Methods that get the call's first argument as their expression; empty if it has none."""
    function = ast.unparse(call.func)
    if function == "re.compile":
        names = {
            ast.unparse(node.targets[0])
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and node.value is call
        }
        users = (
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in names
        )
        return frozenset(node.attr for node in users) & METHODS | {"match"}
    if function.startswith("re."):
        return frozenset({function.removeprefix("re.")})
    return frozenset({HANDED_ON[function]} if function in HANDED_ON else ())


FOUND = list(expressions())


def test_every_expression_is_in_the_table() -> None:
    """A new expression needs a proof that it never backtracks.

    Texts that are hard for the expression join the table.
    """
    assert {(one.module, one.text) for one in FOUND} == set(HARD)


def test_expressions_come_from_re_alone_and_are_called_by_its_name() -> None:
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                assert all(alias.asname is None for alias in node.names if alias.name == "re"), file
                assert not {"fnmatch"} & {alias.name for alias in node.names}, file
            elif isinstance(node, ast.ImportFrom):
                assert node.module not in ("re", "fnmatch", "glob"), file
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "glob":
                assert node.attr == "escape", file


@pytest.mark.timeout(
    60, method="signal"
)  # an expression holds Python's lock, but looks for signals
@pytest.mark.parametrize("one", FOUND, ids=lambda one: f"{one.module} {one.text!a}")
def test_a_text_of_a_million_characters_holds_no_expression_up(one: Expression) -> None:
    compiled = re.compile(one.text)
    for head, repeated, tail in HARD[one.module, one.text]:
        text = head + repeated * (LONG // len(repeated)) + tail
        for method in sorted(one.methods):
            getattr(compiled, method)(*(["-", text] if method in ("sub", "subn") else [text]))
