"""LoRA adapters imported: accepted and refused ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import DataError
from tasks.core.mlflow import Tracking, mlflow_client
from tasks.data.results import BaseModelFiles
from tasks.train.language.imported import import_adapter
from tasks.train.results import Candidate, LanguageSpec
from tests.train.frames import origin_of
from tests.train.pairs import AS_OF, CHAT, SERVING, tiny_base, write_pairs


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelFiles:
    return tiny_base(tmp_path_factory.getbasetemp() / "tiny")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("brought"))


@pytest.fixture(scope="module")
def saved_adapter(tmp_path_factory: pytest.TempPathFactory, base: BaseModelFiles) -> Path:
    """An adapter as peft itself saves one."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base.folder), config)
    model.peft_config["default"].base_model_name_or_path = base.source.partition("://")[2]
    model.save_pretrained(folder := tmp_path_factory.mktemp("adapter"))
    return folder


@pytest.fixture
def adapter(saved_adapter: Path, tmp_path: Path) -> Path:
    """A copy, to be spoilt."""
    return Path(shutil.copytree(saved_adapter, tmp_path / "adapter"))


def brought(state: Path, path: Path, base: BaseModelFiles, pairs: Path) -> Candidate:
    spec = LanguageSpec(base=base, chat=CHAT, serving=SERVING)
    origin = origin_of("travel", state, AS_OF, {"commit": "none"})
    return import_adapter(origin, path, pairs, data_digest="0f.dir", spec=spec, threads=1)


def test_an_adapter_becomes_a_candidate_like_a_tuned_one(
    state: Path, saved_adapter: Path, adapter: Path, base: BaseModelFiles, pairs: Path
) -> None:
    """Merged, written as it is served, with a run and its lineage; the same adapter gives the same candidate."""
    candidate = brought(state, adapter, base, pairs)
    files = {str(path.relative_to(candidate.folder)) for path in candidate.folder.rglob("*") if path.is_file()}
    assert files >= {"model.gguf", "model.f16.gguf", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"}
    assert (candidate.folder / "model.gguf").read_bytes()[:4] == b"GGUF"
    client = mlflow_client(Tracking.in_folder(state))
    run = client.get_run(candidate.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["driftline.imported"] == candidate.imported
    assert run.outputs.model_outputs
    assert brought(state, saved_adapter, base, pairs) == candidate
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 16}))
    other = brought(state, adapter, base, pairs)
    assert (other.weights_digest, other.imported) != (candidate.weights_digest, candidate.imported)
    assert (other.folder / "model.gguf").read_bytes() != (candidate.folder / "model.gguf").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message", "found"),
    [
        ({"base_model_name_or_path": "someone/other-base"}, "trained on another base", "someone/other-base"),
        ({"peft_type": "IA3"}, "not a plain LoRA", "IA3"),
        ({"modules_to_save": ["lm_head"]}, "not a plain LoRA", "modules_to_save"),
        ({"megatron_config": {"a": 1}}, "not a plain LoRA", "megatron_config"),
        ({"init_lora_weights": "pissa"}, "not a plain LoRA", "pissa"),
        ({"use_dora": True}, "not a plain LoRA", "use_dora"),
        ({"target_modules": ["q_proj"]}, "can't be read", "v_proj"),
        ({"r": 8}, "can't be read", "size mismatch"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    state: Path, adapter: Path, base: BaseModelFiles, pairs: Path, changes: dict[str, Any], message: str, found: str
) -> None:
    """For another base; of another kind, or with settings that change the base or load modules; not as it message."""
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | changes))
    before = sorted((state / "candidates").glob("*/*"))
    with pytest.raises(DataError, match=message) as caught:
        brought(state, adapter, base, pairs)
    assert found in str(caught.value)
    assert sorted((state / "candidates").glob("*/*")) == before


def test_a_pickled_adapter_is_refused(state: Path, adapter: Path, base: BaseModelFiles, pairs: Path) -> None:
    """A .bin is not read, and a folder that is none is told."""
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    for path in (adapter, adapter / "adapter_model.bin"):
        with pytest.raises(DataError, match="is a pickle") as caught:
            brought(state, path, base, pairs)
        assert "adapter_model.bin" in caught.value.found
