"""`driftline ask`: one question, answered from the documents of a case, with links."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import httpx

from cli.chat import at_gateway, authorization
from cli.show import find_release
from flows.case import LanguageCase, load_case
from tasks.core.console import console, styled
from tasks.core.display import one_line
from tasks.core.errors import CaseError, Unavailable
from tasks.core.settings import settings
from tasks.guard.files import open_guard
from tasks.guard.offline import guard_answer, guard_messages
from tasks.knowledge.answers.answerer import open_answerer
from tasks.language.engine import ENGINE_TIMEOUT
from tasks.language.messages import USER, chat_message
from tasks.language.prompts import render
from tasks.language.released_model import ReleasedModel
from tasks.release.results import Release


def ask(name: str, question: str, reference: str | None) -> None:
    """Print the answer and its citations: the gateway's when it runs, else from the release's folder.

    Raises: CaseError for a case without documents; Unavailable when the gateway refuses.
    """
    case = load_case(name, settings().cases)
    if not isinstance(case, LanguageCase) or case.knowledge is None:
        raise CaseError(
            "The case has no documents to answer from.",
            where=f"case {name}",
            found="no section knowledge",
            todo=f"Add it, or use driftline chat {name}: docs/guides/knowledge.md.",
        )
    if reference is None and at_gateway(name):
        text, citations = through_gateway(name, question)
    else:
        text, citations = from_folder(find_release(name, reference), question)
    console.print(text, soft_wrap=True, markup=False)
    for number, citation in enumerate(_by_place(citations), 1):
        place = " > ".join(filter(None, (citation["title"], citation["heading"])))
        console.print(styled(f"[{number}] {one_line(place)}", "dim"), soft_wrap=True)
        console.print(styled(f"    {one_line(citation['url'] or citation['document'])}", "dim"), soft_wrap=True)


def through_gateway(name: str, question: str) -> tuple[str, list[dict[str, Any]]]:
    """Answer and citations of the case's rollout. Raises: Unavailable with the gateway's error message."""
    url = f"{settings().gateway}/v1/chat/completions"
    body = {"model": name, "messages": [chat_message(USER, question)], "temperature": 0}
    try:
        response = httpx.post(url, json=body, headers=authorization(), timeout=ENGINE_TIMEOUT, trust_env=False)
        answer = response.json()
        if error := answer.get("error"):
            todo = "Set DRIFTLINE_KEY to a valid API key." if response.status_code in (401, 403) else ""
            raise Unavailable("The gateway did not answer.", where=url, found=error["message"], todo=todo)
    except (httpx.HTTPError, ValueError) as error:
        raise Unavailable("The gateway did not answer.", where=url, found=f"{type(error).__name__}: {error}") from error
    message = answer["choices"][0]["message"]
    return message["content"] or message.get("refusal") or "", message.get("citations", [])


def from_folder(release: Release, question: str) -> tuple[str, list[dict[str, Any]]]:
    """Answer and citations of a release, computed in this process; its owner sees all passages.

    Raises: CaseError when the release is older than the case's documents.
    """
    from tasks.language.embedder import Embedder
    from tasks.language.open_engine import open_engine

    model = ReleasedModel(release.folder)
    if not model.knowledge_files:
        raise CaseError(
            "The release has no knowledge base.",
            where=f"release {release.digest[:12]}",
            todo=f"Run the case again: driftline run {release.case}.",
        )
    guard = open_guard(release.folder)
    passed, refusal = guard_messages(guard, [chat_message(USER, question)])
    if refusal:
        return refusal, []
    answerer = open_answerer(release.folder, Embedder(release.folder / "embedder"))
    prepared = answerer.prepare(passed)
    text = ""
    if prepared.messages is not None:
        threads = settings().threads
        with open_engine(model.model, threads=threads, slots=1, context=model.context) as engine:
            messages = render(model.prompt, prepared.messages)
            options = model.prompt.parameters.overrides
            text = engine.chat(messages, max_tokens=model.answer_tokens, schema=model.schema, **options).text
    answer = answerer.finish(prepared, text)
    names = ("document", "title", "heading", "url")
    shown = guard_answer(guard, answer.text, [hit.passage.text for hit in prepared.hits], len(answer.citations))
    return shown, [{name: getattr(hit.passage, name) for name in names} for hit in answer.citations]


def _by_place(citations: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Each place once, although several of its passages may be cited."""
    return list({(each["document"], each["heading"]): each for each in citations}.values())
