"""`driftline chat`: ask a release of a language model from the terminal, and the untuned base beside it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import httpx

from cli.show import find_release
from flows.case import LanguageCase, load_case
from tasks.core.console import console, styled
from tasks.core.errors import CaseError, Unavailable
from tasks.core.local_secrets import OPERATOR, read_secret
from tasks.core.settings import settings
from tasks.language.engine import ENGINE_TIMEOUT, Engine, start_engine
from tasks.language.messages import SYSTEM, USER, chat_message


def chat(name: str, reference: str | None, compare: bool) -> None:
    """Answer each line of the terminal, or of a pipe, as the release's service does: in JSON by its schema.

    Through the gateway, if it runs and nothing is to be compared; else by engines of our own.
    Raises: CaseError, InputError when there is no such release, Unavailable when the gateway refuses.
    """
    case = load_case(name, settings().cases)
    if not isinstance(case, LanguageCase):
        raise CaseError("Only a language model can be talked to.", where=f"case {name}", found=f"kind: {case.kind}")
    if not compare and reference is None and at_gateway(name):
        while (line := _read()) is not None:
            _answer("", through_gateway(name, line))
        return
    from tasks.data.language.base_model import GGUF, open_base
    from tasks.evaluate.language.inference import baseline_prompt

    release = find_release(name, reference)
    told = (release.folder / "system.txt").read_text(encoding="utf-8")
    with ExitStack() as stack:

        def start(gguf: object) -> Engine:
            made = start_engine(gguf, threads=settings().threads, slots=1, context=case.model.context)  # type: ignore[arg-type]
            return stack.enter_context(made)

        asked = [(f"release {release.digest[:12]}", start(release.model), told)]
        if compare:
            base = open_base(case.model, case.folder, settings().state)
            asked.append(("base", start(base.folder / GGUF), baseline_prompt(case.prompt, case.answer)))
        while (line := _read()) is not None:
            for title, one, system in asked:
                messages = [chat_message(SYSTEM, system), chat_message(USER, line)]
                pieces = one.stream(messages, max_tokens=case.serve.answer_tokens, schema=case.answer.json_schema)
                _answer(title if compare else "", pieces)


def at_gateway(name: str) -> bool:
    """Does the gateway run, and know a champion of this case?"""
    try:
        ready = httpx.get(f"{settings().gateway}/readyz", headers=authorization(), timeout=2, trust_env=False)
        return name in ready.raise_for_status().json()["champions"]
    except (httpx.HTTPError, ValueError, KeyError):
        return False


def authorization() -> dict[str, str]:
    """The key of DRIFTLINE_KEY, else the operator's, which goes to nobody but the gateway of a stack of ours."""
    from services.runtime.stack import is_running

    key = os.environ.get("DRIFTLINE_KEY") or (
        read_secret(settings().state, OPERATOR) if is_running(settings()) else None
    )
    return {"authorization": f"Bearer {key}"} if key else {}


def through_gateway(name: str, line: str) -> Iterator[str]:
    """The answer, piece by piece.

    Raises: Unavailable with what the gateway says.
    """
    body = {"model": name, "messages": [chat_message(USER, line)], "stream": True}
    url = f"{settings().gateway}/v1/chat/completions"
    with httpx.stream(
        "POST", url, json=body, headers=authorization(), timeout=ENGINE_TIMEOUT, trust_env=False
    ) as answer:
        for event in answer.iter_lines():
            said = json.loads(event.removeprefix("data: ")) if event.startswith(("data: {", "{")) else {}
            if error := said.get("error"):
                todo = "Set DRIFTLINE_KEY to a key of yours." if answer.status_code in (401, 403) else ""
                raise Unavailable("The gateway does not answer.", where=url, found=error["message"], todo=todo)
            for choice in said.get("choices", ()):
                yield choice["delta"].get("content") or ""


def _read() -> str | None:
    """The next line that says something; None at the end."""
    try:
        while not (line := console.input(styled("> ", "bold") if sys.stdin.isatty() else "").strip()):
            pass
    except EOFError:
        return None
    return line


def _answer(title: str, said: Iterable[str]) -> None:
    if title:
        console.print(styled(f"{title}: ", "dim"), end="")
    begun, pieces = time.monotonic(), 0
    for piece in said:
        console.print(piece, end="", soft_wrap=True)
        pieces += bool(piece)
    seconds = time.monotonic() - begun
    console.print(styled(f"  {pieces} tokens, {seconds:.1f} s", "dim"))
