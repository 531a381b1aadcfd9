"""A LoRA adapter made elsewhere, in place of tuning: checked, merged, and kept as a candidate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tasks.core.code_digest import cache_key
from tasks.core.config import digest_of
from tasks.core.errors import DataError
from tasks.core.files import file_digest, scratch_folder
from tasks.core.mlflow import log_batch
from tasks.core.untrusted import read_json_object
from tasks.data.config import ChatSpec
from tasks.data.results import BaseModelFiles
from tasks.language.library_noise import silence_libraries
from tasks.language.safetensors_header import read_shapes
from tasks.train.candidates import CandidateBuilder
from tasks.train.config import Serving
from tasks.train.language.model import ADAPTER, read_pairs
from tasks.train.language.tune import definitions_of, keep, weights_digest
from tasks.train.results import Candidate, Origin
from tasks.train.tabular.imported import unsupported_model_error

CONFIG = "adapter_config.json"
# What may stand in a LoRA's configuration; the rest of peft's settings change the base, or load modules by name.
LORA = (
    *("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
)
ABOUT = ("base_model_name_or_path", "revision", "peft_version", "inference_mode", "auto_mapping", "megatron_core")
STARTS = (True, False, None, "gaussian")  # of init_lora_weights: others have changed the base


def import_adapter(
    origin: Origin,
    path: Path,
    pairs: Path,
    data_digest: str,
    base: BaseModelFiles,
    talk: ChatSpec,
    serving: Serving,
    threads: int,
) -> Candidate:
    """Merge and keep a LoRA adapter as a candidate, or give the one that the same adapter and inputs made before.

    Raises: DataError when the adapter is a pickle, is damaged, or was made for another base.
    """
    settings = _settings(path, base)
    digest = digest_of([file_digest(path / ADAPTER), file_digest(path / CONFIG)])
    definitions = definitions_of(talk, base)
    key = cache_key(__name__, [origin.case, data_digest, base.digest, definitions, serving.weights, digest])
    making = CandidateBuilder(origin, key, pairs, data_digest, definitions, imported=digest)
    if (found := making.made_before(lambda made: weights_digest(made, base))) is not None:
        return found
    rows = len(read_pairs(pairs / "evaluation.parquet"))
    with (
        silence_libraries(threads),
        making.begun() as (run_id, out),
        scratch_folder(origin.state / "candidates") as work,
    ):
        told = {f"lora.{name}": settings[name] for name in ("r", "lora_alpha") if name in settings}
        params = {"imported": digest, "base": base.source, "base_digest": base.digest, **told}
        log_batch(making.client, run_id, params=params)
        making.log_dataset(run_id, {"num_rows": rows})
        adapter = Path(work) / "adapter"
        adapter.mkdir()
        shutil.copyfile(path / ADAPTER, adapter / ADAPTER)
        (adapter / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")
        return keep(making, run_id, out, adapter, base, serving, 0, rows)


def _settings(path: Path, base: BaseModelFiles) -> dict[str, Any]:
    """A LoRA's configuration, with nothing in it that is not known.

    Raises: DataError.
    """
    files = sorted(each.name for each in path.iterdir()) if path.is_dir() else [path.name]
    wanted = f"a folder with {ADAPTER} and {CONFIG}, as peft saves a LoRA"
    if ADAPTER not in files or CONFIG not in files:
        pickled = " A .bin is a pickle: reading it could run code." if any(n.endswith(".bin") for n in files) else ""
        raise unsupported_model_error(
            f"There is no adapter that could be read.{pickled}", path, ", ".join(files), wanted
        )
    settings = read_json_object(path / CONFIG)
    read_shapes(path / ADAPTER)
    named = str(settings.get("base_model_name_or_path"))
    if named not in (base.source, base.source.partition("://")[2]):
        raise DataError(
            "The adapter was made for another base.",
            where=f"{path / CONFIG}, base_model_name_or_path",
            found=named,
            allowed=base.source,
            todo="Tune it on the case's base. If that is the same model by another name, write the case's name there.",
        )
    from peft import LoraConfig

    usual = LoraConfig().to_dict()
    others = {k: v for k, v in settings.items() if k not in (*LORA, *ABOUT) and v and v != usual.get(k)}
    if settings.get("init_lora_weights") in STARTS:
        others.pop("init_lora_weights", None)
    if others or settings.get("peft_type") != "LORA":
        found = ", ".join(f"{k}: {v}" for k, v in (others or {"peft_type": settings.get("peft_type")}).items())
        raise unsupported_model_error("The adapter is no plain LoRA.", path / CONFIG, found[:300], ", ".join(LORA))
    kept = {name: settings[name] for name in LORA if name in settings}
    return kept | {"base_model_name_or_path": base.source, "inference_mode": True}
