"""Secrets of tests, values that no request can hold, and programs that give credentials."""

from __future__ import annotations

import datetime
import json
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TOKEN = "IQoJb3JpZ2luX2VjEJr//////////wEaCXVzLWVhc3QtMSJHMEUCIQ=="
PROBE = "PrObE0PrObE0PrObE0PrObE0PrObE0"
"""What must be nowhere, where it is the value of something that is a secret by its name."""

VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
BAD = {
    "line break": f"{PROBE}\n{PROBE}",
    "line break at its end": f"{PROBE}\n",
    "return": f"{PROBE}\r",
    "tab": f"{PROBE}\t{PROBE}",
    "escape": f"\x1b[2J{PROBE}",
    "blank at its end": f"{PROBE} ",
    "line separator": f"{PROBE}\u2028{PROBE}",
    "next line": f"{PROBE}\x85{PROBE}",
    "no UTF-8": f"{PROBE}\udcff",
}


def program(place: Path, text: str) -> str:
    (place / "program.py").write_text(textwrap.dedent(text))
    return f"credential_process = {sys.executable} {place}/program.py"


def saying(**more: object) -> str:
    end = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).isoformat()
    told = {
        "Version": 1,
        "AccessKeyId": "A",
        "SecretAccessKey": "S" * 40,
        "SessionToken": "T" * 40,
        "Expiration": end,
        **more,
    }
    return f"import sys; sys.stdout.write({json.dumps(told)!r})"


FAILING = {
    "an error": f"import sys; sys.exit('{PROBE}')",
    "an error that is no text": f"import os; os.write(2, b'\\xff\\xfe{PROBE}'); os._exit(3)",
    "no JSON": f"print('{PROBE}')",
    "no text": f"import os; os.write(1, b'\\xff{PROBE}')",
    "a list": f"print('[\"{PROBE}\"]')",
    "a number": "print(1)",
    "without a key": f'print(\'{{"Version": 1, "SecretAccessKey": "{PROBE}"}}\')',
    "another version": f'print(\'{{"Version": "{PROBE}"}}\')',
    "other types": f'print(\'{{"Version": 1, "AccessKeyId": 1, "SecretAccessKey": ["{PROBE}"]}}\')',
    "another time": saying(Expiration=PROBE),
    "a time without a zone": saying(Expiration="2035-01-01 00:00:00"),
    "a time of no zone that there is": saying(Expiration="2035-01-01T00:00:00+99:99"),
    "nested without end": "print('[' * 200_000)",
    "nothing": "",
    "a signal": "import os; os.kill(os.getpid(), 9)",
}
