"""The command `addbench`: looks at the variants, their runs and what would run again, and trains nothing.

`python -m addbench --help`; also installed as the command `addbench`. Start-up stays far below half a second:
nothing here may import torch at module level.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from add.config.load import ABLATIONS
from add.config.yaml import SpecError
from add.errors import InputError
from addbench import adopt, check, look, plan, preferences, protocols, repair, replication, schema
from addbench.project import UnknownRunError, project_options
from eval.preferences.record import PreferenceError

Report = Callable[[argparse.Namespace], tuple[str, int]]
"""A subcommand: its options to what it prints and its exit code. The docstring's first line is its help."""

_SUBCOMMANDS: dict[str, tuple[Report, Callable[[argparse.ArgumentParser], None] | None]] = {
    "list": (look.list_cells, None),
    "show": (look.show, look.add_run_and_json),
    "diff": (look.diff, look.add_two_runs),
    "validate": (look.validate, None),
    "explain": (look.explain, look.add_run),
    "check": (check.check, check.add_arguments),
    "plan": (plan.plan, plan.add_arguments),
    "adopt": (adopt.adopt, adopt.add_arguments),
    "preferences": (preferences.preferences, preferences.add_arguments),
    "protocols": (protocols.protocols, protocols.add_arguments),
    "replication": (replication.replication, replication.add_arguments),
    "repair": (repair.repair, None),
    "schema": (schema.schema, schema.add_arguments),
}
"""By name: what it reports, and what adds its arguments."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand. Returns 0; 1 where something is invalid; 2 for an unknown run."""
    options = parser().parse_args(arguments)
    report, _ = _SUBCOMMANDS[options.command]
    try:
        text, code = report(options)
    except (SpecError, PreferenceError) as error:
        print(error, file=sys.stderr)
        return 1
    except InputError as error:
        for line in str(error).splitlines():
            print(f"addbench {options.command}: {line}", file=sys.stderr)
        return 2 if isinstance(error, UnknownRunError) else 1
    except OSError as error:  # a path that cannot be read or written, or a full disk
        where = f"{error.filename}: " if error.filename else ""
        print(f"addbench {options.command}: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Whoever reads (head, less) has seen enough. Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description = "The ablations as values: run nothing, see all."
    top = argparse.ArgumentParser(prog="addbench", description=description, parents=[project_options()])
    top.set_defaults(scale=None, ablations=ABLATIONS)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (report, add_arguments) in _SUBCOMMANDS.items():
        summary = (report.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, help=summary, description=summary, parents=[project_options()])
        if add_arguments is not None:
            add_arguments(command)
    return top


if __name__ == "__main__":
    sys.exit(main())
