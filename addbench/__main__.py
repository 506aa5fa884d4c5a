"""addbench: looks at the variants, their runs and what would run again, without running anything.

`python -m addbench --help`; also installed as the command `addbench`. Start-up stays far below half a second:
nothing here may import torch.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from add.config.yaml import SpecError
from add.errors import InputError
from addbench import adopt, check, diff, explain, plan, preferences, protocols, show, validate
from addbench import list as list_cells
from addbench.project import UnknownRunError
from eval.preferences.record import PreferenceError

_SUBCOMMANDS = {
    "list": list_cells,
    "show": show,
    "diff": diff,
    "validate": validate,
    "explain": explain,
    "check": check,
    "plan": plan,
    "adopt": adopt,
    "preferences": preferences,
    "protocols": protocols,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand. Returns 0; 1 where something is invalid; 2 where a run or a file is not known."""
    options = parser().parse_args(arguments)
    command = _SUBCOMMANDS[options.command]
    try:
        text, code = command.report(options)
    except (SpecError, PreferenceError) as error:
        print(error, file=sys.stderr)
        return 1
    except InputError as error:
        lines = str(error).splitlines()
        print("\n".join(f"addbench {options.command}: {line}" for line in lines), file=sys.stderr)
        return 2 if isinstance(error, UnknownRunError) else 1
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Whoever reads (head, less) has seen enough. Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="addbench", description="The ablations as values: run nothing, see all."
    )
    scale_help = (
        "a name in config/ or a path to a YAML file (default: mini; validate: every scale in config/)"
    )
    top.add_argument("--scale", metavar="SCALE", help=scale_help)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in _SUBCOMMANDS.items():
        summary = (module.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, help=summary, description=summary)
        # Also after the subcommand; SUPPRESS, or its default would hide what stood before the subcommand.
        command.add_argument("--scale", metavar="SCALE", default=argparse.SUPPRESS, help=scale_help)
        module.add_arguments(command)
    return top


if __name__ == "__main__":
    sys.exit(main())
