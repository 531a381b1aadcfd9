"""Opens the base model that a case names, checks it against its pin, and stores it as a folder for transformers."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path

from tasks.core.code_digest import code_digest
from tasks.core.config import digest_of
from tasks.core.errors import CaseError, DataError, Unavailable
from tasks.core.files import atomic_path, file_digest, lock, write_text
from tasks.core.untrusted import read_json_object, reading_untrusted
from tasks.data.config import Model
from tasks.data.origins.local import locate, path_of_uri
from tasks.data.results import GGUF, BaseModelFiles
from tasks.language.gguf_reader import GgufFile, gguf_to_checkpoint
from tasks.language.gguf_writer import is_supported, write_gguf
from tasks.language.messages import ROLES, USER, chat_message
from tasks.language.safetensors_header import read_shapes

_TEMPLATE = "tokenizer.chat_template"  # field of a GGUF
CONTENTS = "contents.json"  # digests of the folder's other files
ALLOWED = "a complete model of transformers: config.json, tokenizer.json and weights that fit them"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def open_base(model: Model, case_folder: Path, state: Path) -> BaseModelFiles:
    """The base model as a checkpoint under `state`/models, written once and written again when it is damaged.

    Raises: DataError when the model is missing, differs from the pinned one, contains pickles or lacks a chat template;
    CaseError when the case needs a longer context or lacks a revision; Unavailable when a hub does not respond.
    """
    origin = _find(model, case_folder)
    packed = GgufFile(origin) if origin.is_file() else None
    weights = [origin] if packed else weights_in(origin, model.source)
    digest = _digest(weights)
    if model.sha256 and model.sha256 != digest:
        raise DataError(
            "The base model is not the pinned one.",
            where=model.source,
            found=f"sha256 {digest}",
            allowed=f"sha256 {model.sha256}",
            todo="Get the pinned model, or, if the change is intended, set model.sha256 in case.yaml to this one.",
        )
    template = model.chat_template or (packed.fields.get(_TEMPLATE, "") if packed else _own_template(origin))
    if not template:
        raise DataError(
            "The base model has no chat template.",
            where=model.source,
            todo="Name one in model.chat_template (a .jinja file in the case), or use a model that was tuned for chat.",
        )
    template_digest = hashlib.sha256(template.encode()).hexdigest()
    folder = state / "models" / f"{digest[:16]}-{template_digest[:8]}"
    with lock(folder.parent / f".{folder.name}.lock", f"The base model {model.source}", wait=True):
        if not _is_intact(folder):
            shutil.rmtree(folder, ignore_errors=True)
            with atomic_path(folder) as work:
                work.mkdir(parents=True)
                with reading_untrusted("The base model can't be read.", origin, allowed=ALLOWED):
                    if packed:
                        gguf_to_checkpoint(packed, work)
                    else:
                        _copy(origin, weights, work)
                    _complete(work, template)
    with reading_untrusted("The base model can't be read.", folder / "config.json", allowed=ALLOWED):
        max_context = int(read_json_object(folder / "config.json").get("max_position_embeddings") or model.context)
    if model.context > max_context:
        raise CaseError(
            "The case sets a longer context than the base model supports.",
            where="model.context",
            found=f"{model.context} tokens",
            allowed=f"at most {max_context}",
            todo="Lower model.context, or use another base.",
        )
    return BaseModelFiles(
        source=model.source,
        digest=digest,
        folder=folder,
        template_digest=template_digest,
        parameters=sum(_count_parameters(path) for path in folder.glob("*.safetensors")),
        context=max_context,
    )


def _find(model: Model, case_folder: Path) -> Path:
    """The GGUF, or the folder, that the source names."""
    scheme, _, rest = model.source.partition("://")
    if scheme == "hf":
        return _download(rest, model)
    if (folder := path_of_uri(model.source, case_folder)).is_dir():
        return folder
    path = locate(model.source, case_folder)
    if path.suffix != ".gguf":
        raise DataError(
            "The base model is a file of another kind.",
            where=model.source,
            found=path.name,
            allowed="a .gguf file, or a folder with .safetensors",
            todo="Name such a file or folder in model.source.",
        )
    return path


def _download(name: str, model: Model) -> Path:
    """A hub's repository at the pinned commit, from the cache or, if the hub may be contacted, from there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if not model.revision:
        raise CaseError(
            "A model from a hub needs its revision.",
            where="model.revision",
            found="none",
            allowed="a commit of the repository",
            todo="Set model.revision, so that tomorrow's run starts from the same model.",
        )
    patterns = ["*.safetensors", "*.json", "*.jinja"]
    try:
        return Path(snapshot_download(name, revision=model.revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise Unavailable(
            "The base model could not be downloaded from the hub.",
            where=f"{model.source} at {model.revision}",
            found=str(error).strip().splitlines()[0][:300],
            todo="Check name and revision; downloads need HF_HUB_OFFLINE=0. Or name a folder by file://.",
        ) from error


def weights_in(folder: Path, source: str) -> list[Path]:
    """The safetensors of a complete transformers folder.

    Raises: DataError when a file is missing, or the weights are pickles, which run code when they are read.
    """
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    names = _names_in(index) if index.is_file() else [single.name]
    weights = [folder / name for name in names]
    if not weights[0].is_file() and (pickles := [path.name for kind in PICKLES for path in folder.glob(kind)]):
        raise DataError(
            "The model's weights are pickles, which run code when they are read: refused.",
            where=source,
            found=", ".join(sorted(pickles)),
            allowed="model.safetensors, or several with model.safetensors.index.json",
            todo="Get the model as safetensors, or convert it on a machine where you trust it.",
        )
    required = [*names, "config.json", "tokenizer.json", "tokenizer_config.json"]
    if missing := [name for name in required if not (folder / name).is_file()]:
        raise DataError(
            "The model's folder lacks files.",
            where=source,
            found=f"no {', no '.join(missing)}",
            allowed=", ".join(required),
            todo="Save the model there with transformers' save_pretrained, and its tokenizer too.",
        )
    for path in weights:
        _count_parameters(path)  # checked now: a truncated file would only fail in the middle of a training
    return weights


def _names_in(index: Path) -> list[str]:
    """The files that an index names, all in its folder. Raises: DataError."""
    with reading_untrusted(
        "The index of the model's weights can't be read.", index, allowed="weight_map: names of files"
    ):
        names = sorted(set(read_json_object(index)["weight_map"].values()))
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("a weight_map without files, or with files of other folders")
    return names


def _digest(weights: list[Path]) -> str:
    """SHA-256 of the one file, or over the digests of several."""
    digests = [file_digest(path) for path in weights]
    return digests[0] if len(digests) == 1 else digest_of(digests)


def _own_template(folder: Path) -> str:
    beside = folder / "chat_template.jinja"
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    with reading_untrusted(
        "The tokenizer's settings can't be read.", settings, allowed="chat_template: a text, or texts by name"
    ):
        template = read_json_object(settings).get("chat_template")
        if isinstance(template, list):  # several by name
            template = {each["name"]: each["template"] for each in template}.get("default")
        if not isinstance(template, str | None):
            raise ValueError("a chat_template that is not a text")
    return template or ""


def _copy(origin: Path, weights: list[Path], work: Path) -> None:
    """A copy, not a link: the checked files stay unchanged, whatever happens to the origin."""
    for path in [*weights, *origin.glob("*.json")]:
        shutil.copyfile(path, work / path.name)


def _complete(work: Path, template: str) -> None:
    (work / "chat_template.jinja").write_text(template, encoding="utf-8")
    _check_template(work)
    if is_supported(work):
        write_gguf(work, work / GGUF, "q8_0")
    files = {path.name: file_digest(path) for path in sorted(work.iterdir())}
    write_text(work / CONTENTS, json.dumps({"code": code_digest(__name__), "files": files}, indent=1))


def _check_template(folder: Path) -> None:
    """Raises: DataError when the tokenizer can't be read, or its template does not render a conversation."""
    from jinja2 import TemplateError
    from transformers import AutoTokenizer

    messages = [chat_message(role, "A word.") for role in (*ROLES, USER)]
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    except (TemplateError, ValueError, OSError, KeyError, TypeError) as error:
        raise DataError(
            "The base model's tokenizer can't be read, or its chat template does not render.",
            where=str(folder / "chat_template.jinja"),
            found=f"{type(error).__name__}: {str(error).strip()[:300]}",
            allowed="Jinja that renders a conversation with a system message",
            todo="Correct the template that model.chat_template names, or name one.",
        ) from error


def _is_intact(folder: Path) -> bool:
    """Whether the folder contains, byte by byte, what this code wrote."""
    try:
        contents = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
        files = contents["files"].items()
        return contents["code"] == code_digest(__name__) and all(
            file_digest(folder / name) == digest for name, digest in files
        )
    except (OSError, ValueError, KeyError):
        return False


def _count_parameters(path: Path) -> int:
    """Raises: DataError when the file does not fit its header."""
    return sum(math.prod(shape) for shape in read_shapes(path).values())
