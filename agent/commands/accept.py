"""`accept`: what looks like a collapse is meant; what is missing was meant to go."""

import argparse

from agent.commands.names import known_files, resolve_files
from agent.commands.session import add_verb, open_session
from agent.commands.wording import print_json, say, why
from agent.core.errors import AgentError
from agent.core.model import Grade
from agent.core.naming import display
from agent.core.paste import shell_word
from agent.manual import accept_live
from agent.outcome import Ending, Outcome


class NotAcceptedError(AgentError):
    """The state of a file cannot be made a good one; nothing was changed."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "accept",
        help="a suspect state is meant: make it good; a missing file was meant to go",
        text="A suspect file (emptied, or much smaller than before) becomes good as it is now, and its snapshot\n"
        "the restore point.  A missing file is forgotten; its snapshots are kept.",
        example="example:\n  backup-agent accept data/users.json",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="a data file, or a folder for all in it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    ended: list[Outcome] = []
    with open_session(args) as session:
        for rel in resolve_files(session, args.files, known_files):
            ended.append(session.until_settled(lambda rel=rel: accept_live(session.ws, rel)))  # type: ignore[misc]  # bound now
    if args.json:
        print_json([_as_json(outcome) for outcome in ended])
    else:
        for outcome in ended:
            if outcome.ending in _TOLD:
                say(f"{display(outcome.rel)}: {_TOLD[outcome.ending]}{_named(outcome)}")
    refusals = [_refusal(outcome) for outcome in ended if outcome.ending not in _TOLD]
    if refusals:
        raise NotAcceptedError("\n".join(map(str, refusals)), hint=refusals[0].hint)
    return 0


_TOLD = {
    Ending.PUBLISHED: "accepted, it is good now",
    Ending.UNCHANGED: "good already",
    Ending.FORGOTTEN: "forgotten; its snapshots are kept, and it is new when it comes back",
}


def _named(outcome: Outcome) -> str:
    return f": {display(outcome.snapshot.name)}" if outcome.snapshot else ""


def _refusal(outcome: Outcome) -> NotAcceptedError:
    name, word = display(outcome.rel), shell_word(outcome.rel)
    if outcome.grade in (Grade.CORRUPT, Grade.INVALID):
        places = "; ".join(str(problem) for problem in outcome.problems[:3])
        return NotAcceptedError(
            f"{name} is {outcome.grade} and cannot be made good: {places}",
            hint=f"mend it, or run `backup-agent restore {word}`",
        )
    if outcome.ending in (Ending.BUSY, Ending.CHANGED):
        return NotAcceptedError(f"{name} is being written", hint="try again in a moment")
    reason = (
        (why(outcome.error) if outcome.error else "")
        or "; ".join(map(str, outcome.problems))
        or outcome.detail.replace("_", " ")
    )
    return NotAcceptedError(
        f"{name} cannot be accepted: {reason}", hint="nothing was changed; try again when it is read"
    )


def _as_json(outcome: Outcome) -> dict[str, object]:
    return {
        "file": outcome.rel,
        "outcome": {Ending.PUBLISHED: "accepted", Ending.UNCHANGED: "good_already"}.get(
            outcome.ending, outcome.ending.value
        ),
        "grade": outcome.grade.value if outcome.grade else None,
        "snapshot": outcome.snapshot.name if outcome.snapshot else None,
    }
