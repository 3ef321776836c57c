"""The command itself: reads the options, runs a verb, and turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sinkhorn_rebasin.cli.failures import UsageError, exit_code, one_line
from sinkhorn_rebasin.cli.faulty_data import told_of_data
from sinkhorn_rebasin.cli.terminal import complain
from sinkhorn_rebasin.cli.verb import Options, Verb
from sinkhorn_rebasin.cli.verbs.align import ALIGN
from sinkhorn_rebasin.cli.verbs.apply import APPLY
from sinkhorn_rebasin.cli.verbs.carry import CARRY
from sinkhorn_rebasin.cli.verbs.diagnose import DIAGNOSE
from sinkhorn_rebasin.cli.verbs.inspect import INSPECT
from sinkhorn_rebasin.cli.verbs.merge import MERGE
from sinkhorn_rebasin.cli.verbs.path import PATH
from sinkhorn_rebasin.cli.verbs.verify import VERIFY
from sinkhorn_rebasin.errors import RebasinError

VERBS = {verb.name: verb for verb in (INSPECT, DIAGNOSE, ALIGN, APPLY, MERGE, CARRY, PATH, VERIFY)}
EXIT_CODES = "exit codes: 0 done; 2 refused, with the reason; 3 verification failed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        arguments: without the name of the command; None takes those of the process.

    Example:
        >>> main(["inspekt"])
        2
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            verb, options = _parsed(given)
            with told_of_data(options):
                verb.run(options)
        except SystemExit as stop:  # of --help
            return int(stop.code or 0)
        except KeyboardInterrupt:
            complain("interrupted; nothing was left half-written")
            return 130
        except (RebasinError, OSError, MemoryError) as error:
            complain(one_line(error))
            return exit_code(error)
    return 0


def _parsed(given: list[str]) -> tuple[Verb, Options]:
    try:
        import jsonargparse
    except ImportError as error:
        raise UsageError(
            "Expected jsonargparse, which reads the options, but it is not installed: pip install jsonargparse."
        ) from error
    parser = _parser(jsonargparse)
    if not given:
        given = ["--help"]
    try:
        chosen = parser.parse_args(given)
    except (argparse.ArgumentError, jsonargparse.ArgumentError) as error:
        raise UsageError(_with_nearest(one_line(error), given)) from error
    if chosen.verb is None:
        raise UsageError(f"Expected one of the verbs {', '.join(VERBS)}.")
    verb, options = VERBS[chosen.verb], chosen[chosen.verb]
    _fill_in(verb, options)
    return verb, options


def _parser(jsonargparse: Any) -> Any:
    parser = jsonargparse.ArgumentParser(
        prog="sinkhorn-rebasin",
        description="Align and merge trained networks, files in, files out.",
        epilog=EXIT_CODES,
        exit_on_error=False,
    )
    verbs = parser.add_subcommands(dest="verb", required=False)
    for verb in VERBS.values():
        own = jsonargparse.ArgumentParser(
            description=verb.purpose, epilog=f"example: {verb.example}", exit_on_error=False
        )
        own.add_argument("--config", action="config", help="YAML file with options of this verb")
        verb.add_options(own)
        verbs.add_subcommand(verb.name, own, help=verb.purpose)
    return parser


def _fill_in(verb: Verb, options: Options) -> None:
    """Take positional options from the files of settings, and refuse missing ones."""
    for name in verb.positional:
        if not options[name]:
            told = (value for value in _in_files(options.config, name) if value)
            options[name] = next(told, options[name])
    if verb.settle is not None:
        verb.settle(options)
    for name in (*verb.positional, *verb.required):
        if options[name] is None:
            shown = name if name in verb.positional else f"--{name}"
            raise UsageError(f"Expected {shown} for {verb.name}. Example: {verb.example}")


def _in_files(files: Sequence[Any] | None, name: str) -> list[Any]:
    import yaml

    read = (yaml.safe_load(Path(str(file)).read_text()) or {} for file in files or ())
    return [settings[name] for settings in read if name in settings]


def _with_nearest(message: str, given: Sequence[str]) -> str:
    """Name the option that an unknown one is nearest to.

    >>> _with_nearest("unrecognized arguments: --sede 3", ["align"])
    "unrecognized arguments: --sede 3; did you mean '--seed'?"
    """
    unknown = re.search(
        r"unrecognized arguments: -*([\w-]+)|option '([\w.-]+)'|invalid choice: '(\w+)'", message
    )
    if unknown is None:
        return message
    word = next(part for part in unknown.groups() if part)
    verb = next((VERBS[name] for name in given if name in VERBS), None)
    known = [*VERBS] if verb is None else _option_names(verb)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if not near:
        return f"{message}; known are {', '.join(known)}" if unknown.group(2) else message
    dashes = "--" if unknown.group(1) else ""
    return f"{message}; did you mean {dashes + near[0]!r}?"


def _option_names(verb: Verb) -> list[str]:
    """List the options of a verb, dashes taken off."""
    parser = argparse.ArgumentParser(add_help=False)
    verb.add_options(parser)
    return [action.dest for action in parser._actions]


def _show_warning(message: Warning | str, *_unused: Any, **_also_unused: Any) -> None:
    complain(f"warning: {one_line(str(message))}")


__all__ = ["main"]
