"""`driftline prompt optimize`: search a better prompt within a budget, and write it as a draft."""

from __future__ import annotations

import difflib
import json
import shutil
from contextlib import ExitStack
from pathlib import Path

from cli.prompt_reference import as_yaml, language_case, prompt_text
from cli.search import ProgressLines, print_findings
from cli.terminal import ProgressPrinter
from flows.case import LanguageCase
from tasks.core.console import console
from tasks.core.files import write_text
from tasks.core.progress import progress_listener
from tasks.core.settings import settings
from tasks.language.prompt_file import FOLDER, SUFFIX, TESTS, load_prompt, prompt_files
from tasks.language.prompts import Prompt
from tasks.release.task import find_champion
from tasks.search.budget import start_clock
from tasks.search.config import Limit
from tasks.search.results import SearchResult
from tasks.search.search import FOLDER as SEARCHES


def optimize(name: str, budget: str, as_json: bool) -> None:
    """Search, print what was tried and spent, and write the best prompt into the case's folder of prompts.

    Raises: InputError for a budget that can't be read or is too small; CaseError without questions.
    """
    from flows.language_search import check_searchable, prompt_problem
    from flows.run_context import Request, run_context
    from flows.search import search_case

    Limit.parse(budget)
    case = language_case(name)
    check_searchable(case)
    config = settings()
    clock = start_clock(config.state / SEARCHES / name)
    with run_context(Request(case=name)) as run, ExitStack() as stack:
        stack.callback(clock.close, 0.0)  # of a search that was refused, nothing is left to pay
        if not as_json:
            stack.enter_context(progress_listener(stack.enter_context(ProgressPrinter())))
        champion = find_champion(name, config.tracking, config.state)
        problem = prompt_problem(run, case, champion)
        result = search_case(run, budget, ProgressLines(as_json), preparing=clock, problem=problem)
    path = write_draft(case, result)
    if as_json:
        print(json.dumps(result.model_dump(mode="json") | {"file": str(path) if path else None}, indent=2))
        return
    print_findings(result)
    if path is not None:
        _print_draft(case, path)


def write_draft(case: LanguageCase, result: SearchResult) -> Path | None:
    """The file of the chosen prompt, with the tests of the case's; an equal one is not written again.

    None when the case's own is the best.
    """
    if not result.chosen:
        return None
    section = {name: value for name, value in (result.best.change["prompt"] or {}).items() if name != "tests"}
    notes = f"Found by driftline prompt optimize. {result.metric}: {result.comparison}."
    prompt = Prompt.model_validate({**section, "notes": notes})
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


def _print_draft(case: LanguageCase, path: Path) -> None:
    before = prompt_text(case.prompt).splitlines()
    after = prompt_text(load_prompt(path)).splitlines()
    shown = f"{FOLDER}/{path.name}"
    lines = difflib.unified_diff(before, after, fromfile="the case", tofile=shown, lineterm="")
    console.print("\n".join(lines), markup=False)
    console.print(f"To adopt it, set prompt: {shown} in case.yaml. The gates judge it on other examples:")
    console.print(f"  driftline run {case.name}")
