"""`driftline chat`: chat with a release in the terminal, optionally beside its untuned base model."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx

from cli.show import find_release
from flows.case import LanguageCase, load_case
from tasks.core.console import console, styled
from tasks.core.errors import CaseError, Unavailable
from tasks.core.local_secrets import OPERATOR, read_secret
from tasks.core.settings import settings
from tasks.guard.files import open_guard
from tasks.guard.offline import guard_messages, guard_pieces
from tasks.language.engine import ENGINE_TIMEOUT, Engine
from tasks.language.messages import USER, chat_message
from tasks.language.open_engine import open_engine
from tasks.language.remote_engine import RemoteEngine
from tasks.language.upstream import is_remote


def chat(name: str, reference: str | None, compare: bool) -> None:
    """Answer each line of standard input as the release's service does: in JSON that follows its schema.

    The gateway answers when it runs and nothing is compared; else a local engine does.
    Raises: CaseError, InputError when there is no such release, Unavailable when the gateway refuses.
    """
    case = load_case(name, settings().cases)
    if not isinstance(case, LanguageCase):
        raise CaseError("Only a language case can chat.", where=f"case {name}", found=f"kind: {case.kind}")
    if not compare and reference is None and at_gateway(name):
        while (line := _read()) is not None:
            _print_response("", through_gateway(name, line))
        return
    from tasks.data.language.base_model import open_base
    from tasks.data.language.remote_base import open_remote
    from tasks.evaluate.language.inference import baseline_prompt
    from tasks.language.prompts import released_prompt, render

    release = find_release(name, reference)
    with ExitStack() as stack:

        def start(model: Path) -> Engine | RemoteEngine:
            engine = open_engine(model, threads=settings().threads, slots=1, context=case.model.context)
            return stack.enter_context(engine)

        engines = [(f"release {release.digest[:12]}", start(release.model), released_prompt(release.folder))]
        if compare:
            state = settings().state
            remote = is_remote(case.model.source)
            base = open_remote(case.model, state) if remote else open_base(case.model, case.folder, state)
            engines.append(("base", start(base.served), baseline_prompt(case.prompt, case.answer)))
        guard = open_guard(release.folder)
        while (line := _read()) is not None:
            passed, refusal = guard_messages(guard, [chat_message(USER, line)])
            if refusal:
                _print_response("", [refusal])
                continue
            for title, one, prompt in engines:
                longest = prompt.parameters.max_tokens or case.serve.answer_tokens
                messages, schema = render(prompt, passed), case.answer.json_schema
                pieces = one.stream(messages, max_tokens=longest, schema=schema, **prompt.parameters.overrides)
                _print_response(title if compare else "", guard_pieces(guard, pieces))


def at_gateway(name: str) -> bool:
    """Whether the gateway runs and has a champion of this case."""
    try:
        ready = httpx.get(f"{settings().gateway}/readyz", headers=authorization(), timeout=2, trust_env=False)
        return name in ready.raise_for_status().json()["champions"]
    except (httpx.HTTPError, ValueError, KeyError):
        return False


def authorization() -> dict[str, str]:
    """The key in DRIFTLINE_KEY, else the operator's key, which is sent only to the local stack's gateway."""
    from services.runtime.stack import is_running

    key = os.environ.get("DRIFTLINE_KEY") or (
        read_secret(settings().state, OPERATOR) if is_running(settings()) else None
    )
    return {"authorization": f"Bearer {key}"} if key else {}


def through_gateway(name: str, line: str) -> Iterator[str]:
    """Yield the response text as it streams.

    Raises: Unavailable with the gateway's error message.
    """
    body = {"model": name, "messages": [chat_message(USER, line)], "stream": True}
    url = f"{settings().gateway}/v1/chat/completions"
    with httpx.stream(
        "POST", url, json=body, headers=authorization(), timeout=ENGINE_TIMEOUT, trust_env=False
    ) as answer:
        for event in answer.iter_lines():
            event = json.loads(event.removeprefix("data: ")) if event.startswith(("data: {", "{")) else {}
            if error := event.get("error"):
                todo = "Set DRIFTLINE_KEY to a valid API key." if answer.status_code in (401, 403) else ""
                raise Unavailable("The gateway did not answer.", where=url, found=error["message"], todo=todo)
            for choice in event.get("choices", ()):
                yield choice["delta"].get("content") or choice["delta"].get("refusal") or ""


def _read() -> str | None:
    """The next line that is not blank; None at the end of input."""
    try:
        while not (line := console.input(styled("> ", "bold") if sys.stdin.isatty() else "").strip()):
            pass
    except EOFError:
        return None
    return line


def _print_response(title: str, chunks: Iterable[str]) -> None:
    if title:
        console.print(styled(f"{title}: ", "dim"), end="")
    started, pieces = time.monotonic(), 0
    for chunk in chunks:
        console.print(chunk, end="", soft_wrap=True)
        pieces += bool(chunk)
    seconds = time.monotonic() - started
    console.print(styled(f"  {pieces} tokens, {seconds:.1f} s", "dim"))
