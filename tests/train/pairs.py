"""Small folders of pairs, as the data package writes them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.core.files import atomic_path, file_digest
from tasks.core.settings import ROOT
from tasks.data.config import Answer, ChatSpec
from tasks.data.results import BaseModelFiles
from tasks.language.prompts import Prompt
from tasks.train.config import Serving, Tuning
from tasks.train.results import Candidate, LanguageSpec
from tests.language_case import smollm_base, tiny_checkpoint
from tests.train.frames import origin_of

SYSTEM = "Turn the message into a JSON call of find_flight, flight_status or none."
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "function": {"enum": ["find_flight", "flight_status", "none"]},
        "origin": {"type": "string"},
        "destination": {"type": "string"},
        "flight": {"type": "string"},
    },
    "required": ["function"],
    "additionalProperties": False,
}
# killed by SIGKILL in a step between two checkpoints; prints the ids of its child processes
KILLED = """
import os, signal, sys, json
from pathlib import Path
import psutil
from tasks.data.results import BaseModelFiles
from tasks.train.language.trainer_callbacks import ProgressCallback
from tests.train.pairs import tuned
state, base = Path(sys.argv[1]), BaseModelFiles.model_validate_json(sys.argv[2])
pairs, at = Path(sys.argv[3]), int(sys.argv[4])
original = ProgressCallback.on_step_end
def die(self, args, state, control, **more):
    if state.global_step == at:
        print(json.dumps([child.pid for child in psutil.Process().children()]), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, args, state, control, **more)
ProgressCallback.on_step_end = die
tuned(state, base, pairs, json.loads(sys.argv[5]), **json.loads(sys.argv[6]))
"""
AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
WORDINGS = {
    "find": ["Is there a flight from {a} to {b}?", "I need to get from {a} to {b}.", "Book me {a} to {b} please"],
    "status": ["Is {f} on time?", "How late is {f} today?", "Tell me about {f}, has it left?"],
    "none": ["What is a good recipe for soup?", "Sing me a song about {b}.", "Who won the game last night?"],
}
CODES = ["JFK", "LGA", "EWR", "BOS", "ORD", "LAX", "SFO", "MIA", "ATL", "DEN"]


def write_pairs(folder: Path, train: int = 24, held: int = 8, seed: int = 0) -> Path:
    """Write the four files, with so many pairs to train on and in each other file."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    for name, count in {"train": train, "validation": held, "evaluation": held, "safety": 2}.items():
        pd.DataFrame([_pair(chance, name, number) for number in range(count)]).to_parquet(folder / f"{name}.parquet")
    return folder


def _pair(chance: random.Random, name: str, number: int) -> dict[str, Any]:
    intent = list(WORDINGS)[number % len(WORDINGS)]
    a, b = chance.sample(CODES, 2)
    f = f"{chance.choice(['UA', 'DL', 'B6'])}{chance.randint(100, 999)}"
    answers = {
        "find": {"function": "find_flight", "origin": a, "destination": b},
        "status": {"function": "flight_status", "flight": f},
        "none": {"function": "none"},
    }
    wording = chance.choice(WORDINGS[intent]).format(a=a, b=b, f=f)
    return {
        "pair_id": f"{name}-{number}",
        "intent": intent,
        "template": f"{intent}-{WORDINGS[intent].index(wording) if wording in WORDINGS[intent] else 0}",
        "day": "2013-03-01",
        "messages": json.dumps([{"role": "user", "content": wording}]),
        "answer": json.dumps(answers[intent], separators=(",", ":")),
        "rejected": None,
        "origin": "templates",
        "tokens": 60,
    }


def tiny_base(folder: Path) -> BaseModelFiles:
    """A base of two thin layers with the real tokenizer: what it says is noise, but it learns, and fast."""
    if not (folder / "config.json").is_file():
        with atomic_path(folder) as work:
            tiny_checkpoint(work)
    digest = file_digest(folder / "model.safetensors")
    return smollm_base().model_copy(update={"folder": folder, "digest": digest, "parameters": 3_230_000})


def stages(**changes: Any) -> dict[str, Any]:
    """A short sft stage; `changes` go to it."""
    short = {"steps": 6, "batch": 4, "warmup": 1, "checkpoint_every": 2, "evaluate_every": 3, "learning_rate": 0.01}
    return {"sft": {**short, **changes}}


CHAT = ChatSpec(
    prompt=Prompt(system=SYSTEM, baseline="{schema}"),
    answer=Answer(json_schema=SCHEMA, abstain={"function": "none"}, stated=("origin", "destination", "flight")),
    context=1024,
)
SERVING = Serving(answer_tokens=12)


def tuned(
    state: Path, base: BaseModelFiles, pairs: Path, stages: dict[str, Any], *, data: str = "0f.dir", **changes: Any
) -> Candidate:
    """A candidate tuned in `state` on a snapshot of digest `data`; `changes` go to the tuning."""
    from tasks.train.language.tune import TuningPairs, tune

    return tune(
        origin_of("travel", state, AS_OF, {"commit": "none"}),
        TuningPairs(pairs, pairs),
        data_digest=data,
        spec=LanguageSpec(base=base, chat=CHAT, serving=SERVING),
        tuning=Tuning.model_validate({"stages": stages, "threads": 1, **changes}),
    )


def killed_at(
    step: int, state: Path, base: BaseModelFiles, pairs: Path, stages: dict[str, Any], **changes: Any
) -> list[int]:
    """Tune in a process that is killed in this step; the ids of the processes that it had started."""
    arguments = [str(state), base.model_dump_json(), str(pairs), str(step), json.dumps(stages), json.dumps(changes)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -9, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
