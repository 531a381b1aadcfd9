"""`driftline prompt optimize`: search a better prompt within a budget, and write it as a draft."""

from __future__ import annotations

import difflib
import json
import shutil
from contextlib import ExitStack
from pathlib import Path

from cli.prompt_reference import as_yaml, language_case, prompt_text
from cli.terminal import ProgressPrinter
from flows.case import LanguageCase
from tasks.core.console import PlainTable, console
from tasks.core.files import write_text
from tasks.core.progress import progress_listener
from tasks.evaluate.language.call_budget import Limit
from tasks.evaluate.language.prompt_search import PromptSearch
from tasks.language.prompt_file import FOLDER, SUFFIX, TESTS, load_prompt, prompt_files
from tasks.language.prompts import Prompt
from tasks.release.task import find_champion


def optimize(name: str, budget: str, as_json: bool) -> None:
    """Search, print what was tried and spent, and write the best prompt into the case's folder of prompts.

    Raises: InputError for a budget that can't be read or is too small; CaseError without questions.
    """
    from flows.prompt_search import check_searchable, find_prompt
    from flows.run_context import Request, run_context

    limit, case = Limit.parse(budget), language_case(name)
    check_searchable(case)
    with run_context(Request(case=name)) as run, ExitStack() as stack:
        if not as_json:
            stack.enter_context(progress_listener(stack.enter_context(ProgressPrinter())))
        champion = find_champion(name, run.settings.tracking, run.settings.state)
        search = find_prompt(run, case, limit, champion)
    path = None if search.prompt is None else write_draft(case, search, search.prompt)
    if as_json:
        shown = search.model_dump(mode="json", exclude={"prompt"}) | {"file": str(path) if path else None}
        print(json.dumps(shown, indent=2))
        return
    _print(case, search)
    if path is not None:
        _print_draft(case, path)


def write_draft(case: LanguageCase, search: PromptSearch, found: Prompt) -> Path:
    """The file of the best prompt, with the tests of the case's; an equal file is not written again."""
    share = f"{search.loss}: {search.comparison}" if search.comparison else search.loss
    prompt = found.model_copy(update={"notes": f"Found by driftline prompt optimize. {share}."})
    for path in prompt_files(case.folder):
        if load_prompt(path).digest == prompt.digest:
            return path
    stem, folder = f"{case.prompt.name.partition('-optimized')[0] or 'prompt'}-optimized", case.folder / FOLDER
    taken = {path.name.removesuffix(SUFFIX) for path in prompt_files(case.folder)}
    names = (f"{stem}-{number}" if number > 1 else stem for number in range(1, len(taken) + 2))
    path = folder / f"{next(name for name in names if name not in taken)}{SUFFIX}"
    folder.mkdir(exist_ok=True)
    beside = folder / f"{path.name.removesuffix(SUFFIX)}{TESTS}"  # so that the gates stay the same
    if (tests := folder / f"{case.prompt.name}{TESTS}").is_file():
        shutil.copyfile(tests, beside)
    elif case.prompt.tests:
        write_text(beside, as_yaml(case.prompt.tests.model_dump(mode="json", exclude_defaults=True)))
    return write_text(path, prompt_text(prompt))


def _print(case: LanguageCase, search: PromptSearch) -> None:
    table = PlainTable("tried", "questions", search.loss, "best so far", "")
    for trial in search.trials:
        table.add_row(trial.change, str(trial.answered), f"{trial.loss:.4g}", f"{trial.best:.4g}", trial.outcome)
    console.print(table)
    before = f", {search.calls_before:,} of them by earlier runs" if search.calls_before else ""
    console.print(f"spent: {search.calls:,} calls{before}, {search.seconds:.0f} s; the search ended: {search.stopped}")
    if search.prompt is None:
        console.print(f"No prompt was better than the one of {case.name} on {search.questions} questions.")
        return
    console.print(f"on the questions that chose it: {search.comparison}")


def _print_draft(case: LanguageCase, path: Path) -> None:
    before = prompt_text(case.prompt).splitlines()
    after = prompt_text(load_prompt(path)).splitlines()
    shown = f"{FOLDER}/{path.name}"
    lines = difflib.unified_diff(before, after, fromfile="the case", tofile=shown, lineterm="")
    console.print("\n".join(lines), markup=False)
    console.print(f"To adopt it, set prompt: {shown} in case.yaml. The gates judge it on other examples:")
    console.print(f"  driftline run {case.name}")
