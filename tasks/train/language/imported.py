"""Import a LoRA adapter instead of tuning one: check it, merge it, and store it as a candidate."""

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
from tasks.data.results import BaseModelFiles
from tasks.language.library_noise import silence_libraries
from tasks.language.safetensors_header import read_shapes
from tasks.train.candidates import CandidateBuilder
from tasks.train.language.model import ADAPTER, read_pairs
from tasks.train.language.tune import store_candidate, weights_digest
from tasks.train.results import Candidate, LanguageSpec, Origin
from tasks.train.tabular.imported import unsupported_model_error

CONFIG = "adapter_config.json"
# The allowed settings of a LoRA; the others of peft change the base, or load modules by name.
LORA_SETTINGS = (
    *("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
)
IGNORED_SETTINGS = (
    "base_model_name_or_path",
    "revision",
    "peft_version",
    "inference_mode",
    "auto_mapping",
    "megatron_core",
)
INITIALIZERS = (True, False, None, "gaussian")  # of init_lora_weights: the others change the base


def import_adapter(
    origin: Origin,
    path: Path,
    pairs: Path,
    *,
    data_digest: str,
    spec: LanguageSpec,
    threads: int,
) -> Candidate:
    """Merge and store a LoRA adapter as a candidate, or return the existing one of equal adapter and inputs.

    Raises: DataError when the adapter is a pickle, is damaged, or was trained on another base.
    """
    base = spec.base
    config = _read_config(path, base)
    digest = digest_of([file_digest(path / ADAPTER), file_digest(path / CONFIG)])
    key = cache_key(
        __name__, [origin.case, data_digest, base.digest, spec.definitions_digest, spec.serving.weights, digest]
    )
    builder = CandidateBuilder(origin, key, pairs, data_digest, spec.definitions_digest, imported=digest)
    if (existing := builder.load_existing(lambda folder: weights_digest(folder, base))) is not None:
        return existing
    rows = len(read_pairs(pairs / "evaluation.parquet"))
    with (
        silence_libraries(threads),
        builder.start_run() as run,
        scratch_folder(origin.state / "candidates") as work,
    ):
        params = {"imported": digest, "base": base.source, "base_digest": base.digest}
        params |= {f"lora.{name}": config[name] for name in ("r", "lora_alpha") if name in config}
        log_batch(builder.client, run.run_id, params=params)
        builder.log_dataset(run.run_id, {"num_rows": rows})
        adapter = Path(work) / "adapter"
        adapter.mkdir()
        shutil.copyfile(path / ADAPTER, adapter / ADAPTER)
        (adapter / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
        return store_candidate(builder, run, adapter, spec, train_rows=0, holdout_rows=rows)


def _read_config(path: Path, base: BaseModelFiles) -> dict[str, Any]:
    """The allowed settings of a LoRA's configuration.

    Raises: DataError.
    """
    files = sorted(each.name for each in path.iterdir()) if path.is_dir() else [path.name]
    allowed = f"a folder with {ADAPTER} and {CONFIG}, as peft saves a LoRA"
    if ADAPTER not in files or CONFIG not in files:
        pickled = " A .bin is a pickle: reading it could run code." if any(n.endswith(".bin") for n in files) else ""
        raise unsupported_model_error(f"There is no readable adapter.{pickled}", path, ", ".join(files), allowed)
    settings = read_json_object(path / CONFIG)
    read_shapes(path / ADAPTER)
    base_name = str(settings.get("base_model_name_or_path"))
    if base_name not in (base.source, base.source.partition("://")[2]):
        raise DataError(
            "The adapter was trained on another base.",
            where=f"{path / CONFIG}, base_model_name_or_path",
            found=base_name,
            allowed=base.source,
            todo="Tune it on the case's base. If it is the same model under another name, write the case's name there.",
        )
    from peft import LoraConfig

    defaults = LoraConfig().to_dict()
    others = {
        k: v for k, v in settings.items() if k not in (*LORA_SETTINGS, *IGNORED_SETTINGS) and v and v != defaults.get(k)
    }
    if settings.get("init_lora_weights") in INITIALIZERS:
        others.pop("init_lora_weights", None)
    if others or settings.get("peft_type") != "LORA":
        found = ", ".join(f"{k}: {v}" for k, v in (others or {"peft_type": settings.get("peft_type")}).items())
        raise unsupported_model_error(
            "The adapter is not a plain LoRA.", path / CONFIG, found[:300], ", ".join(LORA_SETTINGS)
        )
    known = {name: settings[name] for name in LORA_SETTINGS if name in settings}
    return known | {"base_model_name_or_path": base.source, "inference_mode": True}
