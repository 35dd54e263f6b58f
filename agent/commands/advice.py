"""What a person should do about a file that is not good."""

from msgspec import Struct

from agent.commands.caller import pasteable
from agent.core.decide import LeftWhy
from agent.core.model import Grade
from agent.core.paste import shell_word
from agent.disk.atomic import is_disk_full
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
_FULL = "free space on the disk of the backups"
_OF_PART = {  # of a folder with other files, which a command for the folder would touch as well
    Grade.MISSING: "`backup-agent restore {name} --dry-run` shows all that it would put back",
    Grade.CORRUPT: "`backup-agent restore {name} --dry-run` shows all that it would put back; or"
    " `backup-agent check --heal` before the bot starts",
}


class Step(Struct, frozen=True):
    """What to do next, with the name left out as {name}; `text` is empty where there is nothing to do.

    `of_part` is said of some files of a folder that has others; None where each such file has to be told by itself.
    """

    text: str
    of_part: str | None = None

    def of(self, name: str, *, is_part: bool = False) -> str:
        """Return the step for a file or folder, with commands that can be pasted."""
        text = self.of_part if is_part and self.of_part is not None else self.text
        return pasteable(text.format(name=shell_word(name)))


def step_for(outcome: Outcome) -> Step:
    """Return the one next step."""
    if is_disk_full(outcome.error):
        return Step(_FULL, of_part=_FULL)
    never_there = outcome.grade is Grade.MISSING and outcome.left_why is LeftWhy.NEVER_GOOD
    if outcome.left_why in _BY_REASON and not never_there:
        step = _BY_REASON[outcome.left_why]
        return Step(step, of_part=step)
    grade = Grade.UNREADABLE if outcome.ending is Ending.UNREADABLE else outcome.grade
    step = _BY_GRADE.get(grade, "") if grade else ""
    return Step(step, of_part=_OF_PART.get(grade) if grade and "{name}" in step else step)


def next_step(outcome: Outcome) -> str:
    """Return the one next step, with commands that can be pasted; empty where there is none."""
    return step_for(outcome).of(outcome.rel)
