"""Opens a base model behind an address: asks its server what it is and can, and stores that in place of weights."""

from __future__ import annotations

from pathlib import Path

from tasks.core.config import digest_of
from tasks.core.errors import DataError, DriftlineError
from tasks.core.files import atomic_path
from tasks.data.config import Model
from tasks.data.results import BaseModelFiles
from tasks.language.messages import USER, chat_message
from tasks.language.remote_engine import RemoteEngine, connect_upstream
from tasks.language.upstream import UPSTREAM, Upstream, address_in, model_in
from tasks.language.upstream_facts import facts_of

QUESTION = [chat_message(USER, "Answer with the word yes.")]
SCHEMA = {
    "type": "object",
    "properties": {"word": {"enum": ["yes"]}},
    "required": ["word"],
    "additionalProperties": False,
}
PROBE_TOKENS = 16  # of an answer to the question
COMPLETION_TOKENS = "max_completion_tokens"


def open_remote(model: Model, state: Path) -> BaseModelFiles:
    """The description of the server under `state`/models; equal as long as the server is the same, as far as it shows.

    Raises: CaseError when its address is not set; Unavailable when it does not answer; DataError when it refuses.
    """
    named = Upstream(
        source=model.source,
        address=address_in(model.source),
        model=model_in(model.source),
        key=model.key,
        parameters=model.parameters,
    )
    folder = state / "models" / f"upstream-{digest_of(named.model_dump(mode='json'))[:16]}"
    upstream = _describe(named, _stored(folder))
    with atomic_path(folder / UPSTREAM) as work:
        upstream.write(work)
    return BaseModelFiles(
        source=model.source,
        digest=digest_of(upstream.model_dump(mode="json", exclude={"source", "key"})),
        folder=folder,
        template_digest="",
        parameters=0,
        context=model.context,
        upstream=upstream,
    )


def _stored(folder: Path) -> Upstream | None:
    try:
        return Upstream.read(folder / UPSTREAM)
    except DriftlineError:
        return None


def _describe(named: Upstream, before: Upstream | None) -> Upstream:
    """The description from before, if the server shows nothing else; a server may answer with several fingerprints."""
    known = before or named
    with connect_upstream(known) as engine:
        facts = facts_of(engine)
        try:
            engine.chat(QUESTION, max_tokens=PROBE_TOKENS)
        except DataError as error:
            if COMPLETION_TOKENS not in error.found:
                raise
            known = known.model_copy(update={"tokens_field": COMPLETION_TOKENS})
            engine.upstream = known
            engine.chat(QUESTION, max_tokens=PROBE_TOKENS)
        if before and facts == before.facts and engine.fingerprints <= set(before.fingerprints):
            return known
        follows = _follows_a_schema(engine)
        return known.model_copy(
            update={"json_schema": follows, "fingerprints": tuple(sorted(engine.fingerprints)), "facts": facts}
        )


def _follows_a_schema(engine: RemoteEngine) -> bool:
    try:
        answer = engine.chat(QUESTION, max_tokens=2 * PROBE_TOKENS, schema=SCHEMA)
    except DataError:
        return False
    return "".join(answer.text.split()) == '{"word":"yes"}'
