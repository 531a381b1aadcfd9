from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tasks.core.errors import DataError, Unavailable
from tasks.data.results import GGUF
from tasks.language.engine import PROBE_TIMEOUT, Engine, start_engine
from tasks.language.gguf_writer import write_gguf
from tests.language_case import smollm_base

TEXTS = (
    "Is UA1234 from JFK to LAX on 3/4/2013 late?",
    "hört ihr?\n\n  2024-05-06 ☃ 日本語 don't",
    "a\n\n\nb\tc   d  ",
    "<|im_end|> <repo_name> ½ ² ٣ x²",
    "    def f(x):\r\n\treturn x\n",
    "it's WE'RE I'LL 1st 22nd 3.14",
    "👩‍👩‍👧 Ünïcödé ﬁ e\u0301 \u00a0\u2003\u3000.",
    "",
)
GOLDEN = (
    "What is the capital of Japan?",
    "Write a JSON object with a name and an age.",
    "Translate 'good morning' to French.",
    "Count from 1 to 10.",
)
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Oslo"]}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def f16(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    packed = write_gguf(smollm_base().folder, tmp_path_factory.mktemp("f16") / "f16.gguf", "f16")
    with start_engine(packed, threads=1, slots=2, context=512) as running:
        yield running


@pytest.fixture(scope="module")
def model():
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(smollm_base().folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm_base().folder)


@pytest.mark.parametrize("text", TEXTS)
def test_engine_and_transformers_see_the_same_tokens(f16, tokenizer, text):
    """What the model is trained on and what it is served with are the same token ids."""
    system = {"role": "system", "content": "You are 5."}
    for messages in (ask(text), [system, *ask(text), {"role": "assistant", "content": f"Yes, {text}"}, *ask("And 7?")]):
        assert f16.tokens(messages) == tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]


def distances(serving: Engine, model, tokenizer) -> list[float]:
    """By how much the engine's log-probabilities of its own greedy answers differ from transformers'."""
    import torch

    gaps = []
    for text in GOLDEN:
        reply = serving.chat(ask(text), max_tokens=16, logprobs=True)
        prompt = serving.tokens(ask(text))
        assert reply.logprobs
        with torch.no_grad():
            logits = model(torch.tensor([prompt + [token for token, _ in reply.logprobs]])).logits[0]
        known = torch.log_softmax(logits.float(), -1)
        gaps += [
            abs(known[len(prompt) - 1 + place, token].item() - value)
            for place, (token, value) in enumerate(reply.logprobs)
        ]
    return gaps


def test_log_probabilities_agree_with_transformers(f16, model, tokenizer):
    """At f16 the engine computes what transformers computes."""
    gaps = distances(f16, model, tokenizer)
    assert len(gaps) > 40
    assert max(gaps) < 0.02


def test_quantised_weights_stay_near(model, tokenizer):
    """At q8_0 the engine is close to transformers, yet not the same."""
    with start_engine(smollm_base().folder / GGUF, threads=1, slots=1, context=512) as quantised:
        gaps = distances(quantised, model, tokenizer)
    assert 0.001 < sum(gaps) / len(gaps) < 0.1


def test_an_answer_under_a_schema_is_such_json(f16):
    """An untuned model that would chat gives JSON of the schema."""
    free = f16.chat(ask("Where is it warm?"), max_tokens=48)
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(free.text)
    reply = f16.chat(ask("Where is it warm?"), max_tokens=48, schema=SCHEMA)
    assert reply.finish == "stop"
    answer = json.loads(reply.text)
    assert answer["city"] in ("Paris", "Oslo")
    assert isinstance(answer["warm"], bool)


def test_replies_come_in_order_and_count_their_tokens(f16, tokenizer):
    """Concurrent answers are those of one at a time; the second time the prompt comes from the cache."""
    conversations = [ask(text) for text in GOLDEN]
    replies = f16.chat_batch(conversations, max_tokens=6)
    assert [reply.text for reply in replies] == [f16.chat(each, max_tokens=6).text for each in conversations]
    assert [reply.tokens_in for reply in replies] == [len(f16.tokens(each)) for each in conversations]
    assert all(reply.tokens_out <= 6 and reply.seconds > 0 for reply in replies)
    assert {reply.finish for reply in replies} == {"length"}
    again = f16.chat(conversations[-1], max_tokens=6)
    assert again.tokens_cached > 0.9 * again.tokens_in


def test_a_seed_repeats_a_sampled_answer(f16):
    """Sampling is repeatable, and another seed says something else."""
    replies = [f16.chat(ask("Tell me a story."), max_tokens=12, temperature=1.5, seed=seed).text for seed in (1, 1, 2)]
    assert replies[0] == replies[1] != replies[2]


def test_invalid_requests_raise_data_errors(f16):
    """A message beyond the context and a schema that is none are the user's errors; the engine goes on."""
    with pytest.raises(DataError, match="can't answer") as caught:
        f16.chat(ask("a " * 1000), max_tokens=4)
    assert "512" in caught.value.found
    with pytest.raises(DataError, match="can't answer"):
        f16.chat(ask("a"), max_tokens=4, schema={"type": "nonsense"})
    assert f16.chat(ask("a"), max_tokens=4).text


def test_no_other_program_is_answered(f16):
    """The server listens on the loopback only, and wants the key that its starter has."""
    body = {"messages": ask("a"), "max_tokens": 1}
    assert f16.address.startswith("http://127.0.0.1:")
    assert httpx.post(f"{f16.address}/v1/chat/completions", json=body).status_code == 401
    key = {"Authorization": f"Bearer {f16.key}"}
    assert httpx.post(f"{f16.address}/v1/chat/completions", json=body, headers=key).is_success


def test_a_model_that_cannot_be_loaded_is_an_error_with_the_log(tmp_path):
    """A missing file and a damaged one each say what is wrong, and no process stays."""
    with pytest.raises(DataError), start_engine(tmp_path / "none.gguf", threads=1, slots=1, context=64):
        pass
    (tmp_path / "bad.gguf").write_bytes((smollm_base().folder / GGUF).read_bytes()[:3_000_000])
    before = psutil.Process().children()
    with (
        pytest.raises(Unavailable, match="could not start") as caught,
        start_engine(tmp_path / "bad.gguf", threads=1, slots=1, context=64, log=tmp_path / "log"),
    ):
        pass
    assert "corrupted or incomplete" in caught.value.found
    assert psutil.Process().children() == before


def test_a_crash_of_the_engine_is_an_error_of_the_call_only(tmp_path):
    """When native code dies, the run goes on and says so; another engine starts after it."""
    for _ in range(2):
        before = set(psutil.Process().children())
        with start_engine(smollm_base().folder / GGUF, threads=1, slots=1, context=64, log=tmp_path / "log") as running:
            (child,) = set(psutil.Process().children()) - before
            child.send_signal(signal.SIGSEGV)
            child.wait(10)
            with pytest.raises(Unavailable, match="does not answer"):
                running.chat(ask("a"), max_tokens=1)
        assert set(psutil.Process().children()) == before


def test_an_engine_with_many_calls_is_not_taken_for_hung(f16):
    """Calls that wait for a slot hold no thread that its watch needs."""
    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(f16.chat, ask(f"Story {i}"), max_tokens=8) for i in range(20)]
        time.sleep(0.3)
        begun = time.monotonic()
        assert f16.fault() == ""
        assert time.monotonic() - begun < PROBE_TIMEOUT
        assert not all(call.done() for call in calls)
        assert all(call.result().text for call in calls)


def test_a_killed_starter_leaves_no_engine(tmp_path):
    """Even kill -9 of the starter ends the engine."""
    code = (
        "import sys, time; from pathlib import Path; from tasks.language.engine import start_engine\n"
        f"with start_engine(Path({str(smollm_base().folder / GGUF)!r}), threads=1, slots=1, context=64) as engine:\n"
        "    print(engine.address, flush=True); time.sleep(60)"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root) as starter:
        assert starter.stdout
        address = starter.stdout.readline().strip()
        assert httpx.get(f"{address}/health").is_success
        os.kill(starter.pid, signal.SIGKILL)
    for _ in range(100):
        try:
            httpx.get(f"{address}/health", timeout=1)
        except httpx.TransportError:
            return
        time.sleep(0.1)
    pytest.fail("the engine still answers")
