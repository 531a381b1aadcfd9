"""Damage files of every kind that a stranger may bring, and see that each ends in one error of ours.

    python -m benchmarks.fuzz_files [--quick] [--seconds N] [--seed N] [--json FILE]

Neither another exception nor more memory than MOST_MEMORY is allowed. The files begin whole; what is done to them is
drawn by Hypothesis: bytes flipped, cut, doubled, and numbers of headers replaced by those that break parsers.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import resource
import shutil
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from benchmarks.table import Report, arguments
from tasks.core.errors import DriftlineError

MOST_MEMORY = 700 << 20  # bytes more than before the first file
REQUIRED = {"memory_growth_mb": f"<= {MOST_MEMORY >> 20}"}
NUMBERS = (0, 1, 2, 7, 255, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
NUMERIC: tuple[Any, ...] = (-1, 0, 2**31, 2**63, 1e308)
VALUES = (*NUMERIC, None, True, "", "x" * 99, "numpy.ndarray", "builtins.eval", [], {}, [[[[]]]])
STEP = st.tuples(st.integers(0, 5), st.floats(0, 1, exclude_max=True), st.integers(0, 2**16))


def damage(content: bytes, steps: list[tuple[int, float, int]]) -> bytes:
    """The content after each step: what to do, where, and with which number."""
    for what, where, number in steps:
        at = int(where * (len(content) + 1))
        if what == 0:
            content = content[:at] + bytes([number % 256]) + content[at + 1 :]
        elif what == 1:
            content = content[:at]
        elif what == 2:
            content = content[:at] + content[at : at + number % 64] * 2 + content[at + number % 64 :]
        else:  # a number of a header
            width = (2, 4, 8)[what - 3]
            value = NUMBERS[number % len(NUMBERS)] % 2 ** (8 * width)
            content = content[:at] + value.to_bytes(width, "little") + content[at + width :]
    return content


def damage_json(text: bytes, steps: list[tuple[int, float, int]]) -> bytes:
    """A JSON text with some of its values replaced."""
    value = json.loads(text)
    for _, where, number in steps:
        places: list[tuple[Any, Any]] = []
        left = [value]
        while left:
            each = left.pop()
            keys = list(each) if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else ()
            places += [(each, key) for key in keys]
            left += [each[key] for key in keys]
        if places:
            holder, key = places[int(where * len(places))]
            holder[key] = copy.deepcopy(VALUES[number % len(VALUES)])  # else a list may come to hold itself
    return json.dumps(value).encode()


class Files:
    """Whole files of every kind, and how each is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kinds: dict[str, tuple[bytes, str, Callable[[Path], Any]]] = {
            "skops": (_skops(folder), ".skops", _read_skops),
            "safetensors": (_safetensors(folder), ".safetensors", _read_safetensors),
            "gguf": (_gguf(folder), ".gguf", _read_gguf),
            "backup": (_backup(folder), ".tar.gz", self._read_backup),
            "zip": (_zip(), ".zip", self._read_source),
            "yaml": ((Path("configs") / "credit" / "case.yaml").read_bytes(), ".yaml", self._read_case),
            "json": (
                b'{"r": 8, "peft_type": "LORA", "target_modules": ["q_proj"]}',
                ".json",
                _json,
            ),
        }

    def check(self, kind: str, steps: list[tuple[int, float, int]], inside: bool) -> str:
        """Read a damaged file; give how it ended. Raises: whatever is no error of ours."""
        content, suffix, read = self.kinds[kind]
        path = self.folder / f"damaged{suffix}"
        path.write_bytes(self._damaged(kind, content, steps, inside))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(path)
        except DriftlineError as error:
            if not error.found and not error.where:
                raise AssertionError("an error that says neither what was found nor where") from error
            return "refused"
        return "read"

    def _damaged(self, kind: str, content: bytes, steps: list[tuple[int, float, int]], inside: bool) -> bytes:
        if not inside:
            return damage(content, steps)
        if kind == "backup":
            return gzip.compress(damage(gzip.decompress(content), steps), 1)
        if kind == "json":
            return damage_json(content, steps)
        if kind in ("skops", "zip"):  # one member of the archive, with a right checksum
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
            name = sorted(members)[int(steps[0][1] * len(members))]
            change = damage_json if name.endswith(".json") else damage
            members[name] = change(members[name], steps)
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                for each, member in members.items():
                    archive.writestr(each, member)
            return buffer.getvalue()
        return damage(content[:2000], steps) + content[2000:]  # headers

    def _read_backup(self, path: Path) -> None:
        from services.runtime.archive import read_metadata, unpack

        target = self.folder / "restored"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        read_metadata(path)
        unpack(path, {"state": target})

    def _read_source(self, path: Path) -> None:
        from tasks.core.duckdb import connect
        from tasks.data.config import Source
        from tasks.data.reading.files import read_files

        declared = Source(uri=f"file://{path}", key=("id",))
        with tempfile.TemporaryDirectory(dir=self.folder) as work, connect() as db:
            read_files(db, "source", declared, files=[path], work=Path(work))

    def _read_case(self, path: Path) -> None:
        from flows.case import load_case

        folder = self.folder / "configs" / "damaged"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / "case.yaml")
        load_case("damaged", self.folder / "configs")


def _skops(folder: Path) -> bytes:
    import numpy as np
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from tasks.train.tabular.model_file import import_skops

    chance = np.random.default_rng(0)
    rows, labels = chance.normal(size=(60, 3)), np.arange(60) % 2
    forest = RandomForestClassifier(2, max_depth=2, random_state=0).fit(rows, labels)
    boosted = HistGradientBoostingClassifier(max_iter=2, max_depth=2).fit(rows, labels)
    model = make_pipeline(StandardScaler().fit(rows), forest)
    model.other_ = boosted
    import_skops().dump(model, folder / "model.skops")
    return (folder / "model.skops").read_bytes()


def _safetensors(folder: Path) -> bytes:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"a": np.ones((4, 4), np.float32), "b": np.ones(3, np.float16)}, folder / "w.safetensors")
    return (folder / "w.safetensors").read_bytes()


def _gguf(folder: Path) -> bytes:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(folder / "w.gguf", "llama")
    writer.add_context_length(64)
    writer.add_token_list(["a", "b", "c"])
    writer.add_token_types([1, 1, 3])
    writer.add_tensor("token_embd.weight", np.ones((4, 32), np.float32))
    writer.add_tensor("output.weight", np.ones((2, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return (folder / "w.gguf").read_bytes()


def _backup(folder: Path) -> bytes:
    from services.runtime.archive import pack

    state = folder / "state"
    (state / "runs").mkdir(parents=True, exist_ok=True)
    (state / "runs" / "one.json").write_text('{"a": 1}')
    (state / "two.txt").write_text("two" * 1000)
    pack(folder / "b.tar.gz", {"state": state}, {"commit": "x"}, lambda _: False)
    return (folder / "b.tar.gz").read_bytes()


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.csv", "id,value\n" + "\n".join(f"{n},{n * 2}" for n in range(500)))
    return buffer.getvalue()


def _read_skops(path: Path) -> None:
    from tasks.train.tabular.model_file import read

    read(path)


def _read_safetensors(path: Path) -> None:
    from tasks.language.safetensors_header import read_shapes

    read_shapes(path)


def _read_gguf(path: Path) -> None:
    from tasks.core.untrusted import reading_untrusted
    from tasks.language.gguf_reader import GgufFile, gguf_to_checkpoint

    model = GgufFile(path)
    with (
        reading_untrusted("The base model can't be read.", path, allowed="a whole model"),
        tempfile.TemporaryDirectory() as out,
    ):
        for name in model.names():
            model.tensor(name)
        gguf_to_checkpoint(model, Path(out))


def _json(path: Path) -> None:
    from tasks.core.untrusted import read_json_object

    read_json_object(path)


def fuzz(seconds: float, start: int = 0) -> tuple[Counter[tuple[str, str]], int]:
    """Read damaged files for so long; give how many of each kind ended how, and by how many bytes memory grew."""
    ends: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder))
        for kind in files.kinds:
            ends[kind, files.check(kind, [], inside=False)] += 1
        before, until, number = _memory(), time.monotonic() + seconds, start

        def one(kind: str, steps: list[tuple[int, float, int]], inside: bool) -> None:
            if time.monotonic() < until:
                ends[kind, files.check(kind, steps, inside)] += 1

        quiet = settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        drawn = given(st.sampled_from(sorted(files.kinds)), st.lists(STEP, min_size=1, max_size=4), st.booleans())
        while time.monotonic() < until:
            random.seed(number)
            seed(number)(quiet(drawn(one)))()
            number += 1
        return ends, max(0, _memory() - before)


def _memory() -> int:
    """The most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    options = arguments("Damaged files.", seconds="How long; default: 600, quick: 20.", seed="Default: 0.")
    seconds = float(options.seconds or (20 if options.quick else 600))
    ends, grown = fuzz(seconds, int(options.seed or 0))
    report = Report("Damaged files", ["kind", "read", "refused"], REQUIRED)
    for kind in sorted({kind for kind, _ in ends}):
        report.row(kind, ends[kind, "read"], ends[kind, "refused"])
    report.figure("memory_growth_mb", grown / 2**20)
    report.finish(("hypothesis", "skops", "safetensors", "PyYAML"), options.json)


if __name__ == "__main__":
    main()
