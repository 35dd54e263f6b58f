"""What a person should do about a file that is not good."""

from agent.commands.wording import shell_word
from agent.core.decide import LeftWhy
from agent.core.model import Grade
from agent.outcome import Outcome

_BY_REASON = {
    LeftWhy.NEVER_GOOD: "no good state of it was ever seen: try `backup-agent repair {name}`, else mend it by hand",
    LeftWhy.PAUSED: "healing is paused: `backup-agent resume` ends that",
    LeftWhy.MASS: "most files are gone at once: check the mount; if it is a loss, `backup-agent restore --all`",
}
_BY_GRADE = {
    Grade.SUSPECT: "`backup-agent accept {name}` if this is meant, else `backup-agent restore {name}`",
    Grade.MISSING: "`backup-agent restore {name}`, or `backup-agent accept {name}` if it was meant to go",
    Grade.CORRUPT: "`backup-agent restore {name}`, or `backup-agent check --heal` before the bot starts",
    Grade.INVALID: "`backup-agent restore {name}`, or `backup-agent check --heal` before the bot starts",
    Grade.UNREADABLE: "the user of the agent must be able to read it",
}


def next_step(outcome: Outcome) -> str:
    """Return the one next step; empty where there is none."""
    never_there = outcome.grade is Grade.MISSING and outcome.left_why is LeftWhy.NEVER_GOOD
    if outcome.left_why in _BY_REASON and not never_there:
        return _BY_REASON[outcome.left_why].format(name=shell_word(outcome.rel))
    return _BY_GRADE[outcome.grade].format(name=shell_word(outcome.rel)) if outcome.grade in _BY_GRADE else ""
