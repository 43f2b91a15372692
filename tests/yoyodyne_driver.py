"""Runs several commands of yoyodyne in one process: `python yoyodyne_driver.py COMMANDS.json RESULTS.json`.

Each is run as its command line would; what it prints, and what it ends with if not well, is written for each.
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from yoyodyne.cli.main import python_interface


def run(arguments: list[str]) -> dict[str, Any]:
    """What one command prints, and its error."""
    output, error = io.StringIO(), ""
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            python_interface(arguments)
        except SystemExit as end:
            error = f"exit {end.code}"
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
    return {"output": output.getvalue(), "error": error}


if __name__ == "__main__":
    commands = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps({name: run(arguments) for name, arguments in commands.items()}))
