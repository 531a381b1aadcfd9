"""`driftline chat`: ask a release of a language model from the terminal, and the untuned base beside it."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack

from flows.case import LanguageCase, load
from flows.show import find_release
from flows.terminal import console
from tasks.foundation.engine import Engine, engine
from tasks.foundation.errors import CaseError
from tasks.foundation.settings import settings
from tasks.foundation.talk import SYSTEM, USER, Messages, turn


def chat(name: str, reference: str | None, compare: bool) -> None:
    """Answer each line of the terminal, or of a pipe, as the release's service does: in JSON by its schema.

    Raises: CaseError, InputError when there is no such release.
    """
    case = load(name, settings().cases)
    if not isinstance(case, LanguageCase):
        raise CaseError("Only a language model can be talked to.", where=f"case {name}", found=f"kind: {case.kind}")
    from tasks.data.checkpoint import GGUF, open_base
    from tasks.evaluate.answering import baseline_prompt

    release = find_release(name, reference)
    told = (release.folder / "system.txt").read_text(encoding="utf-8")
    with ExitStack() as stack:

        def start(gguf: object) -> Engine:
            made = engine(gguf, threads=settings().threads, slots=1, context=case.model.context)  # type: ignore[arg-type]
            return stack.enter_context(made)

        asked = [(f"release {release.digest[:12]}", start(release.model), told)]
        if compare:
            base = open_base(case.model, case.folder, settings().state)
            asked.append(("base", start(base.folder / GGUF), baseline_prompt(case.prompt, case.answer)))
        while (line := _read()) is not None:
            for title, one, system in asked:
                messages = [turn(SYSTEM, system), turn(USER, line)]
                _answer(title if compare else "", one, messages, case)


def _read() -> str | None:
    """The next line that says something; None at the end."""
    try:
        while not (line := console.input("[bold]> [/]" if sys.stdin.isatty() else "").strip()):
            pass
    except EOFError:
        return None
    return line


def _answer(title: str, one: Engine, messages: Messages, case: LanguageCase) -> None:
    if title:
        console.print(f"[dim]{title}:[/] ", end="")
    begun, pieces = time.monotonic(), 0
    for piece in one.stream(messages, max_tokens=case.serve.answer_tokens, schema=case.answer.json_schema):
        console.print(piece, end="", markup=False, highlight=False, soft_wrap=True)
        pieces += bool(piece)
    seconds = time.monotonic() - begun
    console.print(f"  [dim]{pieces} tokens, {seconds:.1f} s[/]")
