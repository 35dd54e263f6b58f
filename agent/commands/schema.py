"""`schema infer`: a starting schema for one data file, from the good state it is in."""

import argparse
import os
from pathlib import Path

from agent.checks import check
from agent.commands.caller import add_config_options, read_config
from agent.commands.inference import NoInferenceError, infer_schema
from agent.commands.wording import print_json
from agent.core.errors import UsageError
from agent.core.model import CheckSpec, Grade
from agent.core.naming import display


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "schema",
        help="infer a starting JSON Schema from a data file",
        description="Infer a starting JSON Schema from a data file.",
        epilog="example:\n  backup-agent schema infer data/users.json > schemas/users.schema.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = parser.add_subparsers(metavar="infer", required=True)
    infer = words.add_parser(
        "infer",
        help="print a schema that the file fits as it is now",
        description="Print a JSON Schema that the file fits as it is now, to be read over and made stricter.\n"
        "Numbers may be any number, and a map keyed by ids has one schema for all of its members.\n"
        "This takes the library genson: pip install 'backup-agent[infer]'.",
        epilog="example:\n  backup-agent schema infer data/users.json > schemas/users.schema.json\n\n"
        "exit codes: 0 printed, 1 the file is damaged or genson is not installed, 2 there is no such file",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    infer.add_argument("file", metavar="FILE", help="a JSON file: a path on this machine, or in the data folder")
    add_config_options(infer)
    infer.add_argument("--json", action="store_true", help="as without: a schema is JSON")
    infer.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    path = args.file
    if not os.path.lexists(path) and not os.path.isabs(path):
        path = os.path.join(read_config(args).data_dir, path)
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {display(args.file)}: {error.strerror}", hint="name a JSON file that you may read"
        ) from error
    print_json(infer_from(text, args.file))
    return 0


def infer_from(text: bytes, name: str) -> dict[str, object]:
    """Return the inferred schema of the document `text`, which the file `name` holds.

    Raises:
        NoInferenceError: it is no good JSON document, or as `infer_schema`.
    """
    result = check(text, CheckSpec())
    if result.grade is not Grade.GOOD:
        where = "; ".join(str(problem) for problem in result.problems[:3])
        raise NoInferenceError(f"{display(name)} is {result.grade}: {where}", hint="infer from a good state of it")
    return infer_schema(text)
