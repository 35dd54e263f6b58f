"""The schemas that `init` proposes: one for each file, and one for a folder whose files are of one shape."""

import json
import os
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from msgspec import Struct, field

from agent.checks.json_schema import schema_grade
from agent.commands.caller import note
from agent.commands.inference import Json, NoInferenceError, infer_schema
from agent.commands.schema import infer_from
from agent.commands.survey import Seen, Survey
from agent.core.model import Grade
from agent.core.naming import display

_SCHEMAS_MAX = 20
_ALIKE_MIN = 3  # files in one folder that may be of one shape
_SAMPLES_MAX = 50


class Schemas(Struct):
    """Where schemas go, as paths from the config: by the rel of a file, and by the folder whose files share one."""

    files: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)  # by path


def propose_schemas(found: Survey, good: Sequence[Seen], required: Collection[str]) -> Schemas:
    """Return schemas for the `good` files: the topmost, then the largest; a `required` one has its own.

    Raises:
        NoInferenceError: there is none for one of them.
    """
    proposed = Schemas()
    alone: list[Seen] = []
    siblings = defaultdict[str, list[Seen]](list)
    for seen in good:
        is_alone = seen.rel in required or "/" not in seen.rel or not seen.rel.endswith(".json")
        (alone if is_alone else siblings[os.path.dirname(seen.rel)]).append(seen)
    for folder, files in sorted(siblings.items()):
        shared = _shared(found, files) if len(files) >= _ALIKE_MIN else None
        if shared is None:
            alone += files
        else:
            proposed.folders[folder] = path = f"schemas/{folder}/_each.schema.json"
            proposed.texts[path] = _text(shared)
    alone.sort(key=lambda seen: (seen.rel.count("/"), -seen.size_bytes, seen.rel))
    if len(alone) > _SCHEMAS_MAX:
        note(
            f"schemas for {_SCHEMAS_MAX} of {len(alone):,} files, the topmost and largest; "
            "`backup-agent schema infer FILE` makes others"
        )
    for seen in sorted(alone[:_SCHEMAS_MAX], key=lambda seen: seen.rel):
        proposed.files[seen.rel] = path = f"schemas/{os.path.splitext(seen.rel)[0]}.schema.json"
        proposed.texts[path] = _text(infer_from(_read(found, seen), seen.rel))
    return proposed


def _shared(found: Survey, files: Sequence[Seen]) -> Json | None:
    """The schema of files of one shape: inferred from the largest, and all fit; None where there is none."""
    samples = sorted(files, key=lambda seen: (-seen.size_bytes, seen.rel))[:_SAMPLES_MAX]
    try:
        texts = [_read(found, seen) for seen in samples]
        if not _are_alike([json.loads(text) for text in texts]):
            return None
        schema = infer_schema(*texts)
    except (NoInferenceError, ValueError, RecursionError):
        return None
    fits = all(schema_grade(_read(found, seen), schema)[0] is Grade.GOOD for seen in files)
    return schema if fits else None


def _are_alike(documents: Sequence[object]) -> bool:
    """Whether all are objects that share half of their keys, or else of one kind."""
    if not all(isinstance(document, dict) for document in documents):
        return len({type(document) for document in documents}) == 1
    keys = [frozenset(document) for document in documents if isinstance(document, dict)]
    common, every = frozenset.intersection(*keys), frozenset.union(*keys)
    return bool(every) and 2 * len(common) >= len(every)


def _read(found: Survey, seen: Seen) -> bytes:
    try:
        return Path(os.path.join(found.data_dir, seen.rel)).read_bytes()
    except OSError as error:
        raise NoInferenceError(f"cannot read {display(seen.rel)}: {error.strerror}", hint="try again") from error


def _text(schema: Json) -> str:
    return json.dumps(schema, indent=2) + "\n"
