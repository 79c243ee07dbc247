"""Latency, size and likeness of a style student: eager fp32, ONNX Runtime and OpenVINO, in full precision and 8 bits.

    python bench/style_speed.py --model model.safetensors --shared ../shared [--runs 30] [--threads 1 2]

For every size and thread count all of them run alternately in this one process, so that a busy machine slows them
alike; p50 and p95 in ms. `network` is float planes in memory → float planes, or with `bytes` a uint8 picture → the
runtime's own uint8 picture; `end to end` a uint8 picture (H, W, 3) → uint8 picture of one's own. 8 bits are calibrated
and compared on the nine photos of `data/style/content`. Without --model the student has random weights: times are the
same then, sizes nearly, the SSIM means little. Beside wall time the process's own processor time is printed, which
others on the machine disturb less. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
from torch import nn

from regraft.deploy.style.export import export_style
from regraft.deploy.style.onnx import INPUT
from regraft.deploy.style.runtime import Student, of_model, open_student, runner
from regraft.images.extensions import EXTENSIONS
from regraft.style.networks.model_file import StyleModel, load_style_model, save_style_model, student_model
from regraft.style.networks.transfer_net import StudentNet

SIZES = {"512x512": (512, 512), "1280x720": (720, 1280)}
BARS_MS = {"512x512": {"network": 10.0, "end to end": 15.0}, "1280x720": {"network": 25.0, "end to end": 35.0}}

Call = Callable[[], object]


def random_student(seed: int) -> StyleModel:
    """The default student with random weights in the last layer too, so that no part of it is zero."""
    torch.manual_seed(seed)
    net = StudentNet()
    nn.init.normal_(net.paint.weight, std=0.1)
    # Statistics of its own activations, as a trained one has.
    with torch.no_grad():
        for _ in range(20):
            net(torch.rand(2, 3, 128, 128))
    return student_model(net.eval(), "random")


def eager_network(model: StyleModel, planes: np.ndarray, threads: int) -> Call:
    net = model.net.eval()
    pictures = torch.from_numpy(planes)

    def call() -> object:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return net(pictures)

    return call


def ort_network(graph: bytes, planes: np.ndarray, threads: int) -> Call:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads would go on spinning while the next runtime is measured.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, value in zip("NHW", (1, *planes.shape[2:]), strict=True):
        options.add_free_dimension_override_by_name(name, value)
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {INPUT: planes})


def ov_network(graph: bytes, planes: np.ndarray, threads: int) -> Call:
    core = openvino.Core()
    model = core.read_model(graph)
    model.reshape(list(planes.shape))
    compiled = core.compile_model(
        model, "CPU",
        {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False,
         "INFERENCE_PRECISION_HINT": "f32"},
    )  # fmt: skip
    request = compiled.create_infer_request()
    return lambda: request.infer({0: planes}, share_inputs=True)


def calls(
    model: StyleModel, files: dict[str, Student], graphs: dict[str, bytes], size: tuple[int, int], threads: int
) -> dict[tuple[str, str], Call]:
    """(what, runtime) → call, for one size and thread count."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    planes = np.ascontiguousarray(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    found: dict[tuple[str, str], Call] = {("network", "eager fp32"): eager_network(model, planes, threads)}
    for precision, graph in graphs.items():
        found["network", f"onnxruntime {precision}"] = ort_network(graph, planes, threads)
        found["network", f"openvino {precision}"] = ov_network(graph, planes, threads)
    for precision, student in files.items():
        assert student.graph is not None
        found["network", f"openvino {precision} bytes"] = ov_network(student.graph, image[None], threads)
    runs = {"eager fp32": runner(files["fp32"], "eager", threads=threads, size_px=size)}
    for precision, student in files.items():
        for runtime in ("onnxruntime", "openvino"):
            runs[f"{runtime} {precision}"] = runner(student, runtime, threads=threads, size_px=size)
    return found | {("end to end", name): (lambda run=run: run(image)) for name, run in runs.items()}


def measured(work: dict[tuple[str, str], Call], runs: int) -> list[dict[str, Any]]:
    """p50 and p95 of wall time, and the least processor time, each run in turn."""
    for call in work.values():
        call()
        call()
    wall: dict[tuple[str, str], list[float]] = {key: [] for key in work}
    spent: dict[tuple[str, str], list[float]] = {key: [] for key in work}
    for _ in range(runs):
        for key, call in work.items():
            start, processor = time.perf_counter(), time.process_time()
            call()
            wall[key].append(1e3 * (time.perf_counter() - start))
            spent[key].append(1e3 * (time.process_time() - processor))
    return [
        {"what": what, "runtime": runtime, "p50_ms": round(float(np.percentile(wall[what, runtime], 50)), 2),
         "p95_ms": round(float(np.percentile(wall[what, runtime], 95)), 2),
         "least_ms": round(min(wall[what, runtime]), 2), "processor_ms": round(min(spent[what, runtime]), 2)}
        for what, runtime in work
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--model", type=Path, help="a student, .safetensors; else random weights")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    folder = args.shared / "data" / "style" / "content"
    photos = sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)
    model = load_style_model(args.model) if args.model else random_student(args.seed)
    with tempfile.TemporaryDirectory() as place:
        full, small = (
            export_style(model, Path(place) / f"{bits}.onnx", photos=photos, int8=bits == 8) for bits in (32, 8)
        )
        files = {"fp32": of_model(model), "int8": open_student(Path(place) / "8.onnx")}
        for bits in (32, 8):
            export_style(model, Path(place) / f"{bits}-float.onnx", photos=photos, int8=bits == 8, pixels="float")
        graphs = {name: (Path(place) / f"{bits}-float.onnx").read_bytes() for name, bits in (("fp32", 32), ("int8", 8))}
        saved = save_style_model(Path(place) / "model.safetensors", model).stat().st_size
    less = small.deflated_bytes / full.deflated_bytes - 1, small.bytes / full.bytes - 1
    print(f"ONNX: {full.bytes} bytes, {full.deflated_bytes} deflated; 8 bits {small.bytes}, {small.deflated_bytes}: "
          f"{less[0]:+.1%} deflated, {less[1]:+.1%} raw; as a style model {saved}")  # fmt: skip
    print(f"8 bits: SSIM {small.ssim} on {small.n_checked} photos, in full precision: {small.kept}, {small.ssim_tried}")

    rows: list[dict[str, Any]] = []
    for name in args.sizes:
        for threads in args.threads:
            found = measured(calls(model, files, graphs, SIZES[name], threads), args.runs)
            eager = {row["what"]: row["p50_ms"] for row in found if row["runtime"] == "eager fp32"}
            print(f"{name}, {threads} thread(s)")
            for row in found:
                row |= {"size": name, "threads": threads, "times_eager": round(eager[row["what"]] / row["p50_ms"], 2)}
                times = "  ".join(f"{key} {row[f'{key}_ms']:8.2f}" for key in ("p50", "p95", "least", "processor"))
                print(f"  {row['what']:10} {row['runtime']:19} {times}  {row['times_eager']:5.2f} x eager")
            rows += found
    summary = {
        "model": args.model.name if args.model else "random",
        "parameters": sum(p.numel() for p in model.net.parameters()),
        "saved_bytes": saved, "fp32": full.to_json(), "int8": small.to_json(), "bars_ms": BARS_MS,
        "load_average": os.getloadavg()[0], "rows": rows,
    }  # fmt: skip
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
