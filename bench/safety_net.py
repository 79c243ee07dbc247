"""Whether two checkouts compute the same: small jobs of every verb of the command line, and hashes of what they give.

    python bench/safety_net.py --out before.json [--shared ../shared] [--work FOLDER] [--jobs 2]
    python bench/safety_net.py --out after.json                   # the same in a later checkout, on the same machine
    python bench/safety_net.py --compare before.json after.json   # what differs, old → new; ends with 1 if it does
    python bench/safety_net.py --out some.json --only 'fit-folder,style-*'   # and what they need; with --compare, too
    python bench/safety_net.py --list

Another checkout's package is tested with PYTHONPATH=that/checkout/src. Results hang on the processor and on versions,
so both files have to come from one machine; how fast it is and where the folders are changes nothing.

Covered (`safety_jobs.py` has the commands): fit on folders, with a test of its own, on tables, groups, folds, numbers,
unsound files, in two processes, with each kind of features; adapt with every method on cached features and several on
the whole network, open, partial, several sources, numbers, source-free; generalise; distance; predict, evaluate, export
and report of such runs; style by every method, several styles, masks, dials, tiles and runtimes; style evaluate, train,
prune, export, translate and apply; demo, models, doctor; three mistakes; the help of every verb.

Kept per job: the exit status (of a failure the last lines on stderr); a hash per tensor of every .safetensors, per
column of every .parquet, of the pixels of every picture, and of what every .onnx answers to one fixed picture (its
bytes name the versions of what wrote it); the headings of every page; report.json, manifest.json, split.json, plan.txt,
the curves and what was printed on stdout, as they are, less what differs between two runs of one checkout: times and
rates (DROPPED), folders and names of runs (masked).

Left out: progress and remarks on stderr, which tell seconds; what --budget tries and how long it trains, which hang on
speed; checkpoints, TensorBoard's files, config.yaml; --max-memory, whose tiles hang on what the process holds.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
from PIL import Image

from safety_jobs import Job, jobs, write_sets

REPOSITORY = Path(__file__).resolve().parents[1]
#: One thread each: sums are then always taken in the same order, and two jobs beside each other keep two cores busy.
PINNED = {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
    "COLUMNS": "400", "TERM": "dumb", "NO_COLOR": "1",
}  # fmt: skip
#: Fields of JSON that differ between two runs of one checkout.
DROPPED = {
    "created", "seconds", "elapsed_s", "first_answer_s", "total_s", "training_s", "latency_ms", "peak_memory_bytes",
    "regraft", "artifact_sha256",
    "files",  # of a manifest: the hash of the whole weight file; its tensors are hashed one by one
}  # fmt: skip
#: A run's name: when it began, what it is, and four digits of its options, which hold the full paths.
RUN = re.compile(r"\d{8}T\d{6}(?:_\d+)?-([\w.+-]+)-[0-9a-f]{4}\b")
#: What `digest` gives.
HASH = re.compile(r"[0-9a-f]{16}")
#: What fills a line up to the width of the screen.
SPACE = re.compile(r"([ ─])\1{2,}")
PICTURES = {".png", ".jpg", ".tiff", ".webp"}
LIMIT_S = 3600


class Masks:
    """What stands for folders and names of runs, which are others each time."""

    def __init__(self, work: Path, shared: Path) -> None:
        self.folders = {str(work): "WORK", str(shared): "SHARED"}

    def text(self, text: str) -> str:
        for folder, name in self.folders.items():
            text = text.replace(folder, name)
        return RUN.sub(r"RUN-\1", text)

    def plain(self, value: Any) -> Any:
        """JSON without DROPPED, its texts masked."""
        if isinstance(value, dict):
            return {self.text(key): self.plain(item) for key, item in value.items() if key not in DROPPED}
        if isinstance(value, list):
            return [self.plain(item) for item in value]
        return self.text(value) if isinstance(value, str) else value


def digest(*parts: bytes | str) -> str:
    """Of all parts, 16 hexadecimal digits."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part)
    return found.hexdigest()[:16]


def tensors(path: Path, masks: Masks) -> dict[str, str]:
    """A hash of kind, shape and bytes per tensor; the file's metadata and order have no part in it."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    head = json.loads(data[8:start])
    head.pop("__metadata__", None)
    return {
        name: digest(item["dtype"], str(item["shape"]), data[start:][slice(*item["data_offsets"])])
        for name, item in sorted(head.items())
    }


def columns(path: Path, masks: Masks) -> dict[str, str]:
    """A hash per column of a Parquet file."""
    table = pq.read_table(path)
    return {name: digest(json.dumps(masks.plain(table[name].to_pylist()))) for name in table.column_names}


def pixels(path: Path, masks: Masks) -> str:
    with Image.open(path) as picture:
        return digest(picture.mode, str(picture.size), picture.tobytes())


def answers(path: Path, masks: Masks) -> dict[str, Any]:
    """Inputs, metadata, and a hash of each output for one fixed picture."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    picture: np.ndarray = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), dtype=np.uint8)
    if given.type != "tensor(uint8)":
        picture = picture.transpose(0, 3, 1, 2).astype(np.float32) / 255
    outputs = [output.name for output in session.get_outputs()]
    found = session.run(outputs, {given.name: np.ascontiguousarray(picture)})
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    metadata.pop("regraft.artifact_sha256", None)
    return {
        "input": f"{given.name} {given.type} {given.shape}",
        "metadata": masks.plain(metadata),
        "outputs": {n: digest(str(v.shape), v.tobytes()) for n, v in zip(outputs, map(np.asarray, found), strict=True)},
    }


def page(path: Path, masks: Masks) -> dict[str, Any]:
    """The headings of a page, and how many pictures and drawings it has."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"<h([1-4])[^>]*>(.*?)</h\1>", text, re.S)
    headings = [" ".join(re.sub(r"<[^>]+>", " ", heading).split()) for _, heading in found]
    return {"headings": masks.plain(headings), "pictures": text.count("data:image/"), "drawings": text.count("<svg")}


def figures(path: Path, masks: Masks) -> Any:
    """JSON, JSON lines, or lines of text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return masks.plain(json.loads(text))
    lines = text.splitlines()
    return masks.plain([json.loads(line) for line in lines] if path.suffix == ".jsonl" else lines)


#: Which part of a job's record a file belongs to, and what of it is kept.
READERS: dict[str, tuple[str, Callable[[Path, Masks], Any]]] = {
    ".safetensors": ("weights", tensors),
    ".parquet": ("tables", columns),
    ".onnx": ("graphs", answers),
    ".html": ("pages", page),
    **{suffix: ("pictures", pixels) for suffix in PICTURES},
    **{suffix: ("figures", figures) for suffix in (".json", ".jsonl", ".txt")},
}
#: Which process made it, and where.
UNREAD = {"env.json", "run.json"}


def files_below(folder: Path) -> Iterator[Path]:
    """Every file in order; LAST, a link, is not followed."""
    for root, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if name not in {"work", "demo-pictures"})
        yield from (Path(root) / name for name in sorted(files))


def record(folder: Path, stdout: str, masks: Masks) -> dict[str, Any]:
    """What a job has left in its folder and printed."""
    found: dict[str, Any] = {}
    for path in files_below(folder):
        if path.suffix not in READERS or path.name in UNREAD:
            continue
        part, reader = READERS[path.suffix]
        name = masks.text(path.relative_to(folder).as_posix())
        try:
            found.setdefault(part, {})[name] = reader(path, masks)
        except Exception as error:  # a damaged file is a finding like any other
            found.setdefault(part, {})[name] = f"{type(error).__name__}: {error}"
    try:
        printed = masks.plain(json.loads(stdout))
    except ValueError:
        printed = [SPACE.sub(r"\1\1", line).rstrip() for line in masks.text(stdout).splitlines()]
    reports = [value for name, value in found.get("figures", {}).items() if name.endswith("report.json")]
    found["stdout"] = "report.json" if printed in reports else printed
    return found


def of_run(word: str, work: Path) -> str:
    """FOLDER/RUN → the one run in that folder, where no LAST points to it."""
    folder, _, name = word.rpartition("/")
    found = [path for path in (work / folder).iterdir() if RUN.fullmatch(path.name)] if name == "RUN" else []
    return f"{folder}/{found[0].name}" if found else word


def run_job(job: Job, work: Path, shared: Path) -> dict[str, Any]:
    """The job in a process of its own, and its record; once more where that was killed from outside."""
    names = {"out": job.name, "data": work / "data", "shared": shared}
    arguments = [of_run(word.format(**names), work) for word in job.arguments.split()]
    cache = str(work / "cache")  # no copies of earlier runs, and no weights that are here by chance
    environment = {**os.environ, **PINNED, "XDG_CACHE_HOME": cache, "TORCH_HOME": cache}
    if "PYTHONPATH" in os.environ:  # it may be relative to where this script is started
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, os.environ["PYTHONPATH"].split(os.pathsep)))
    began = time.monotonic()
    for _ in range(2):
        shutil.rmtree(work / job.name, ignore_errors=True)
        (work / job.name).mkdir()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "regraft", *arguments], cwd=work, env=environment, input=job.stdin, text=True,
                capture_output=True, encoding="utf-8", timeout=LIMIT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"seconds": LIMIT_S, "exit": None, "error": f"not done after {LIMIT_S} s"}
        if done.returncode >= 0:
            break
    masks = Masks(work, shared)
    found: dict[str, Any] = {"seconds": round(time.monotonic() - began, 1), "exit": done.returncode}
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        found["error"] = masks.text(" ".join(lines[-3:]))
    if job.name == "doctor":  # it tells of disk, memory and processor: the exit status is what counts
        return found
    return {**found, **record(work / job.name, done.stdout, masks)}


def run_all(chosen: list[Job], work: Path, shared: Path, workers: int) -> dict[str, Any]:
    """Every job, each after those that it needs; told as they end."""
    began = time.monotonic()
    futures: dict[str, Future[dict[str, Any]]] = {}

    def after_needed(job: Job) -> dict[str, Any]:
        for name in job.needs:
            futures[name].result()
        return run_job(job, work, shared)

    found: dict[str, Any] = {}
    with ThreadPoolExecutor(workers) as pool:
        for job in chosen:
            futures[job.name] = pool.submit(after_needed, job)
        names = {future: name for name, future in futures.items()}
        for count, future in enumerate(as_completed(names), start=1):
            name, result = names[future], future.result()
            found[name] = result
            spent = time.monotonic() - began
            left = spent / count * (len(chosen) - count)
            failed = f", exit {result['exit']}: {result.get('error', '')[:150]}" if result["exit"] != 0 else ""
            told = f"{count} of {len(chosen)}: {name}, {result['seconds']} s{failed}"
            print(f"{told}; {spent:.0f} s spent, about {left:.0f} s left", flush=True)
    return {job.name: found[job.name] for job in chosen}


def with_needed(everything: list[Job], patterns: list[str]) -> list[Job]:
    """The jobs of these names, where * stands for anything, and all that they need, in order."""
    known = {job.name: job for job in everything}
    waiting = []
    for pattern in patterns:
        found = fnmatch.filter(known, pattern)
        if not found:
            raise SystemExit(f"No job is called {pattern}. --list names all of them.")
        waiting += found
    wanted = set()
    while waiting:
        name = waiting.pop()
        wanted.add(name)
        waiting += known[name].needs
    return [job for job in everything if job.name in wanted]


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested JSON → path → plain value; an empty list or object is a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: dict[str, Any] = {}
    for key, item in items:
        found |= flat(item, f"{path} › {key}" if path else str(key))
    return found or {path: value}


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two records of a job: figures with both values, of weights and the like the names."""
    a, b = (flat({key: item for key, item in one.items() if key != "seconds"}) for one in (old, new))
    found = []
    for path in [*a, *(path for path in b if path not in a)]:
        if path not in b or path not in a:
            found.append(f"{path}: only {'old' if path in a else 'new'}")
        elif a[path] != b[path]:
            hashed = all(HASH.fullmatch(str(value)) for value in (a[path], b[path]))
            found.append(path if hashed else f"{path}: {a[path]!r} → {b[path]!r}")
    return found


def compare(old_path: Path, new_path: Path, most: int, chosen: set[str] | None) -> int:
    """Print per job what differs, of these jobs alone where they are given; 1 if anything does."""
    old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (old_path, new_path))
    if old["environment"] != new["environment"]:
        print(f"Careful, other versions or another machine: {old['environment']} → {new['environment']}")
    changed = 0
    names = [n for n in {**old["jobs"], **new["jobs"]} if chosen is None or n in chosen]
    for name in names:
        if name not in old["jobs"] or name not in new["jobs"]:
            found = [f"only in {old_path if name in old['jobs'] else new_path}"]
        else:
            found = differences(old["jobs"][name], new["jobs"][name])
        changed += bool(found)
        print(f"{name}: {f'{len(found)} differ' if found else 'equal'}")
        for line in found[:most]:
            print(f"    {line}")
        if len(found) > most:
            print(f"    … {len(found) - most} more; --most {len(found)} shows all")
    print(f"{changed} of {len(names)} jobs differ.")
    return int(changed > 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=REPOSITORY.parent / "shared")
    parser.add_argument("--out", type=Path, help="where to write what was found, as JSON")
    parser.add_argument("--work", type=Path, help="a new folder that is kept; else a temporary one")
    parser.add_argument("--only", help="names of jobs, or patterns with *, commas between; what they need runs, too")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--list", action="store_true", help="show every job with its command")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("OLD", "NEW"))
    parser.add_argument("--most", type=int, default=12, help="differences shown per job")
    args = parser.parse_args()
    everything = jobs()
    chosen = with_needed(everything, args.only.split(",")) if args.only else everything
    if args.compare:
        old, new = args.compare
        raise SystemExit(compare(old, new, args.most, {job.name for job in chosen} if args.only else None))
    if args.list:
        for job in chosen:
            print(f"{job.name:22} regraft {job.arguments.replace('{out}', job.name)}")
        return
    if args.out is None:
        parser.error("--out FILE says where the hashes go")
    spec = find_spec("regraft")
    print(f"{len(chosen)} jobs on {spec.origin if spec else 'no regraft at all'}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        work = (args.work or Path(folder)).resolve() / "net"
        if work.exists():
            parser.error(f"{work} is there already: give --work another folder")
        work.mkdir(parents=True)
        write_sets(args.shared.resolve(), work / "data")
        found = run_all(chosen, work, args.shared.resolve(), args.jobs)
    packages = ("torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn", "onnxruntime", "openvino")
    environment = {"python": sys.version.split()[0], **{name: version(name) for name in packages}}
    result = {"format": "safety-net/1", "environment": environment, "jobs": found}
    args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    spent = os.times()
    print(f"processor time {spent.children_user + spent.children_system:.0f} s")
    print(f"{sum(job['exit'] != 0 for job in found.values())} of {len(found)} jobs ended with a failure; {args.out}")


if __name__ == "__main__":
    main()
