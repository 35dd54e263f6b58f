"""What a person should do about a file that is not good."""

from agent.commands.caller import pasteable
from agent.core.decide import LeftWhy
from agent.core.model import Grade
from agent.core.paste import shell_word
from agent.outcome import Ending, Outcome

_BY_REASON = {
    LeftWhy.NEVER_GOOD: "no good state of it was ever seen: try `backup-agent repair {name}`, else mend it by hand",
    LeftWhy.PAUSED: "healing is paused: `backup-agent resume` ends that",
    LeftWhy.MASS: "most files are gone at once: check the mount; if it is a loss, `backup-agent restore --all`",
}
_BY_GRADE = {
    Grade.SUSPECT: "`backup-agent accept {name}` if this is meant, else `backup-agent restore {name}`",
    Grade.MISSING: "`backup-agent restore {name}`, or `backup-agent accept {name}` if it was meant to go",
    Grade.CORRUPT: "`backup-agent restore {name}`, or `backup-agent check --heal` before the bot starts",
    Grade.INVALID: "`backup-agent repair {name}` keeps its newer data; else `backup-agent restore {name}`",
    Grade.UNREADABLE: "the user of the agent must be able to read it",
}


def next_step(outcome: Outcome) -> str:
    """Return the one next step, with commands that can be pasted; empty where there is none."""
    never_there = outcome.grade is Grade.MISSING and outcome.left_why is LeftWhy.NEVER_GOOD
    grade = Grade.UNREADABLE if outcome.ending is Ending.UNREADABLE else outcome.grade
    step = _BY_GRADE.get(grade, "") if grade else ""
    if outcome.left_why in _BY_REASON and not never_there:
        step = _BY_REASON[outcome.left_why]
    return pasteable(step.format(name=shell_word(outcome.rel)))
