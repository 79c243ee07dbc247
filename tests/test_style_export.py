"""A student as ONNX, in 8 bits and in other runtimes: the same pictures, or a refusal."""

from __future__ import annotations

import json
import logging
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import Shell
from regraft.compress.folding import bias_moved, folded
from regraft.compress.quantize import deflated_bytes, evened, quantized, rounded, shorten
from regraft.core.errors import ArtifactError, DataError, ExportError, UsageError
from regraft.deploy.style import export as style_export
from regraft.deploy.style import runtime as style_runtime
from regraft.deploy.style.export import export_style
from regraft.deploy.style.onnx import FORMAT, student_graph
from regraft.deploy.style.runtime import Student, alternately, available, fastest, of_model, open_student, runner
from regraft.images.decode import decode
from regraft.images.picture import read_picture
from regraft.recipes.style import job as stylize
from regraft.style.networks.model_file import StyleModel, save_style_model, teacher_model
from regraft.style.networks.shipped import fixed_style
from regraft.style.networks.transfer_net import TeacherNet
from small_student import photos, small_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> StyleModel:
    return small_model()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return photos(tmp_path_factory.mktemp("content"), 4)


def bytes_of(height: int, width: int, n: int = 1) -> np.ndarray:
    return np.random.default_rng([height, width]).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def expected(model: StyleModel, images: np.ndarray) -> np.ndarray:
    """What the network paints on uint8 (N, H, W, 3), rounded to grey levels."""
    with torch.no_grad():
        found = model.net(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    return (found.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def randomised(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert value is not None
        nn.init.uniform_(value, 0.2, 2.0)
    return norm.eval()


def test_a_folded_norm_is_the_convolution_and_the_norm() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 6, 9, 8, dtype=torch.double)
    for convolution in (nn.Conv2d(6, 4, 3, 2, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)):
        norm = randomised(nn.BatchNorm2d(convolution.out_channels))
        found = folded(convolution, norm)
        ours = torch.conv2d(x, found.weight, found.bias, found.stride, found.padding, groups=found.groups)
        torch.testing.assert_close(ours, norm.double()(convolution.double()(x)), rtol=1e-6, atol=1e-9)
    for wrong in (
        nn.Conv2d(6, 4, 3, dilation=2),
        nn.Conv2d(6, 4, (3, 1)),
        nn.Conv2d(6, 4, 3, 1, 1, padding_mode="reflect"),
    ):
        with pytest.raises(ValueError, match="only square"):
            folded(wrong)
    with pytest.raises(TypeError):
        folded(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="running statistics"):
        folded(nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))


def test_a_bias_moves_into_the_point_convolution_behind_it() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 6, 5, 7, dtype=torch.double)
    depthwise, points = folded(nn.Conv2d(6, 6, 3, padding=1, groups=6)), folded(nn.Conv2d(6, 3, 1))
    first, second = bias_moved(depthwise, points)
    assert not first.bias.any()
    before, after = (
        torch.conv2d(torch.conv2d(x, a.weight, a.bias, 1, 1, groups=6), b.weight, b.bias)
        for a, b in ((depthwise, points), (first, second))
    )
    torch.testing.assert_close(after, before)
    with pytest.raises(ValueError, match="1 × 1"):
        bias_moved(depthwise, depthwise)


@pytest.mark.parametrize(("height", "width", "n"), [(16, 24, 2), (19, 26, 1), (1, 9, 1), (33, 8, 2)])
def test_the_graph_paints_what_the_network_paints(model: StyleModel, height: int, width: int, n: int) -> None:
    images = bytes_of(height, width, n)
    wanted = expected(model, images)
    assert np.abs(wanted.astype(int) - images).mean() > 3, "the student changes nothing: the test would be empty"
    session = onnxruntime.InferenceSession(student_graph(model).SerializeToString())
    (found,) = session.run(None, {"images": images})
    assert found.dtype == np.uint8 and found.shape == images.shape
    assert np.abs(found.astype(int) - wanted).max() <= 1
    floats = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
    session = onnxruntime.InferenceSession(student_graph(model, pixels="float").SerializeToString())
    (found,) = session.run(None, {"images": floats})
    with torch.no_grad():
        np.testing.assert_allclose(found, model.net(torch.from_numpy(floats)).clamp(0, 1).numpy(), atol=1e-4)


def test_only_students_have_a_graph(model: StyleModel) -> None:
    with pytest.raises(UsageError, match="A teacher is not exported"):
        student_graph(teacher_model(TeacherNet(1, 8, 1), ("a",)))
    with pytest.raises(UsageError, match="uint8 or float"):
        student_graph(model, pixels="bfloat16")


def test_what_is_exported_says_what_it_is(model: StyleModel, content: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    report = export_style(model, out, photos=content)
    data = out.read_bytes()
    assert (report.bytes, report.deflated_bytes) == (len(data), len(zlib.compress(data, 9)))
    assert (report.full_bytes, report.precision, report.style) == (len(data), "fp32", "waves")
    assert (report.n_checked, report.n_calibrated, report.generated) == (4, 0, False)
    assert report.levels_max <= 1 and report.levels_mean < 0.1 and report.ssim is None
    assert "onnxruntime" in report.runtimes
    stated = {prop.key: prop.value for prop in onnx.load(out).metadata_props}
    assert stated["regraft.format"] == FORMAT and json.loads(stated["regraft.style"]) == ["waves"]
    assert (stated["regraft.precision"], stated["regraft.licence"]) == ("fp32", "CC0-1.0")
    assert export_style(model, tmp_path / "b.onnx", pixels="float").generated


@pytest.mark.parametrize("pixels", ["uint8", "float"])
def test_a_graph_that_paints_otherwise_is_refused(
    model: StyleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: str
) -> None:
    other = student_graph(small_model(seed=1), pixels=pixels)
    monkeypatch.setattr(style_export, "student_graph", lambda model, pixels: other)
    with pytest.raises(ExportError, match="grey levels"):
        export_style(model, tmp_path / "a.onnx", pixels=pixels)
    assert not list(tmp_path.iterdir())


def constants(path: Path, kind: int) -> int:
    return sum(int(np.prod(c.dims)) for c in onnx.load(path).graph.initializer if c.data_type == kind)


def test_eight_bits_are_smaller_and_alike(model: StyleModel, content: list[Path], tmp_path: Path) -> None:
    metrics = pytest.importorskip("torchmetrics.functional.image")
    out = tmp_path / "int8.onnx"
    report = export_style(model, out, photos=content, int8=True)
    assert report.precision == "int8" and (report.n_checked, report.n_calibrated) == (2, 2)
    assert report.bytes == out.stat().st_size < report.full_bytes
    assert report.ssim_tried is not None and report.ssim == [*report.ssim_tried.values()][-1] >= 0.97
    assert constants(out, onnx.TensorProto.INT8) > 0.6 * sum(p.numel() for p in model.net.parameters())
    stated = {prop.key: prop.value for prop in onnx.load(out).metadata_props}
    assert stated["regraft.precision"] == "int8" and stated["regraft.format"] == FORMAT
    found = []
    for runtime in report.runtimes:
        run = runner(open_student(out), runtime, threads=1)
        for path in content[1::2]:
            image = decode(path).permute(1, 2, 0).contiguous().numpy()
            pair = [torch.from_numpy(each).permute(2, 0, 1)[None].float() / 255
                    for each in (run(image), expected(model, image[None])[0])]  # fmt: skip
            found.append(float(metrics.structural_similarity_index_measure(*pair, data_range=1.0)))
    means = np.reshape(found, (len(report.runtimes), -1)).mean(axis=1)
    assert report.ssim == pytest.approx(means.min(), abs=2e-3)


def test_eight_bits_that_are_not_alike_are_refused_after_every_policy(
    model: StyleModel, content: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    monkeypatch.setattr(style_export, "SSIM_LEAST", 1.01)
    monkeypatch.setattr(
        style_export, "quantized", lambda *a, keep, **k: kept.append(len(keep)) or quantized(*a, keep=keep, **k)
    )
    with pytest.raises(ExportError, match="8 bits were refused"):
        export_style(model, tmp_path / "a.onnx", photos=content, int8=True)
    assert len(kept) == 3 and kept == sorted(set(kept)) and not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="need photos"):
        export_style(model, tmp_path / "a.onnx", int8=True)
    with pytest.raises(DataError, match="two or more"):
        export_style(model, tmp_path / "a.onnx", photos=content[:1], int8=True)


def test_quantising_keeps_what_it_is_told_to_and_logs_nothing(
    model: StyleModel, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    graph = student_graph(model)
    before = graph.SerializeToString()
    examples = [{"images": bytes_of(32, 40)}]
    whole = quantized(graph, examples)
    partly = quantized(graph, examples, keep=["paint"])
    scale = quantized(graph, examples, ranges={"cells": (0.0, 510.0)})
    assert sum(float(onnx.numpy_helper.to_array(c)) == 2.0 for c in scale.graph.initializer if not c.dims) == 1
    weights = [sum(int(np.prod(c.dims)) for c in each.graph.initializer if c.data_type == onnx.TensorProto.INT8)
               for each in (whole, partly)]  # fmt: skip
    assert weights[0] - weights[1] >= model.net.paint.weight.numel()
    assert graph.SerializeToString() == before
    assert max(len(name) for node in whole.graph.node for name in node.output) <= len("styled")
    with pytest.raises(UsageError, match="none came"):
        quantized(graph, [])
    with pytest.raises(ValueError, match="no nodes nothing"):
        quantized(graph, examples, keep=["nothing"])
    assert deflated_bytes(bytes(10_000)) == len(zlib.compress(bytes(10_000), 9)) < 100
    said = capfd.readouterr()
    assert not said.out and not said.err and not root.handlers


def test_short_names_change_no_answer(model: StyleModel) -> None:
    graph = student_graph(model)
    images = bytes_of(19, 26)
    (before,) = onnxruntime.InferenceSession(graph.SerializeToString()).run(None, {"images": images})
    size = graph.ByteSize()
    shorten(graph)
    onnx.checker.check_model(graph)
    assert graph.ByteSize() < size
    (after,) = onnxruntime.InferenceSession(graph.SerializeToString()).run(None, {"images": images})
    assert np.array_equal(before, after)


@pytest.mark.parametrize("runtime", ["eager", "onnxruntime", "openvino"])
def test_every_runtime_paints_the_same(model: StyleModel, runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    student = of_model(model)
    assert runtime in available(student)
    run = runner(student, runtime, threads=1)
    for size in ((16, 24), (19, 26)):
        image = bytes_of(*size)[0]
        found = run(image)
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - expected(model, image[None])[0]).max() <= 1
    fixed = runner(student, runtime, threads=1, size_px=(19, 26))
    again = fixed(bytes_of(19, 26)[0])
    kept = again.copy()
    fixed(bytes_of(19, 26)[0] // 2)
    assert np.array_equal(again, kept), "a result is overwritten by the next run"
    assert np.abs(kept.astype(int) - found).max() <= 1
    with pytest.raises(UsageError, match="prepared for 26 × 19 px"):
        fixed(bytes_of(16, 24)[0])
    for wrong in (np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(UsageError, match=r"takes uint8 \(H, W, 3\)"):
            run(wrong)


def test_the_fastest_is_the_least_median_of_all(model: StyleModel, monkeypatch: pytest.MonkeyPatch) -> None:
    student = of_model(model)
    best, run, rows = fastest(student, (16, 24), threads=1, repeats=2)
    assert [row.runtime for row in rows] == available(student)
    assert best == min(rows, key=lambda row: row.p50_ms).runtime
    assert all(row.runs == 2 and row.p50_ms <= row.p95_ms and (row.height_px, row.width_px) == (16, 24) for row in rows)
    assert run(bytes_of(16, 24)[0]).shape == (16, 24, 3)
    monkeypatch.setattr(
        style_runtime, "alternately", lambda calls, repeats: {n: [0.1 * (n != "onnxruntime")] for n in calls}
    )
    assert fastest(student, (16, 24), threads=1)[0] == "onnxruntime"
    with pytest.raises(UsageError, match="onnxruntime"):
        runner(student, "onnxruntme")


def test_calls_take_turns() -> None:
    said: list[str] = []
    spent = alternately({"a": lambda: said.append("a"), "b": lambda: said.append("b")}, 3)
    assert said[-6:] == ["a", "b"] * 3 and [len(row) for row in spent.values()] == [3, 3]
    with pytest.raises(UsageError, match="one is the least"):
        alternately({}, 0)


def test_files_that_are_no_student_are_refused(model: StyleModel, tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    for path, message in ((tmp_path / "a.txt", "is no student"), (tmp_path / "none.onnx", "There is no file")):
        with pytest.raises((UsageError, ArtifactError), match=message):
            open_student(path)
    out.write_bytes(b"\x08 not a graph")
    with pytest.raises(ArtifactError, match=r"a\.onnx"):
        open_student(out)
    plain = student_graph(model)
    del plain.metadata_props[:]
    onnx.save(plain, out)
    with pytest.raises(ArtifactError, match="has format None"):
        open_student(out)
    onnx.save(student_graph(model, pixels="float"), out)
    with pytest.raises(UsageError, match="takes float pictures"):
        open_student(out)
    save_style_model(tmp_path / "t.safetensors", teacher_model(TeacherNet(1, 8, 1), ("a",)))
    with pytest.raises(UsageError, match="A teacher came"):
        open_student(tmp_path / "t.safetensors")
    with pytest.raises(UsageError, match="PyTorch needs the style model"):
        runner(replace(of_model(model), model=None), "eager")
    with pytest.raises(ArtifactError, match="cannot load"):
        runner(Student("a", "fp32", graph=b"\x08 not a graph"), "onnxruntime")


def test_the_command_exports(model: StyleModel, content: list[Path], tmp_path: Path, shell: Shell) -> None:
    save_style_model(tmp_path / "model.safetensors", model)
    command = ("style", "export", "model.safetensors", "--onnx", "out.onnx")
    code, out, err = shell(*command)
    assert code == 0, err
    assert out.startswith("out.onnx: ") and "grey levels of the student on 6 pictures in onnxruntime" in out
    assert open_student(tmp_path / "out.onnx").precision == "fp32"
    code, _, err = shell(*command)
    assert code == 2 and "--force" in err
    code, out, err = shell(*command, "--force", "--int8", "--content", content[0].parent, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["precision"] == "int8" and found["ssim"] >= 0.97
    assert open_student(tmp_path / "out.onnx").precision == "int8"
    code, _, err = shell(*command, "--force", "--int8")
    assert code == 2 and "--content" in err
    code, _, err = shell(*command[:-1], "out.txt")
    assert code == 2 and "ends in .onnx" in err


def test_a_folder_of_pictures_runs_in_the_runtime_that_is_asked_for(
    model: StyleModel, content: list[Path], tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_style_model(tmp_path / "model.safetensors", model)
    photo_folder = str(content[0].parent)
    made: list[str] = []
    prepared = stylize.preparation
    monkeypatch.setattr(stylize, "preparation", lambda runtime: made.append(runtime) or prepared(runtime))
    command = ("style", photo_folder, "--style", "model.safetensors")
    for runtime in ("eager", "onnxruntime"):
        code, _, err = shell(*command, "--runtime", runtime, "-o", runtime)
        assert code == 0, err
    assert made == ["onnxruntime"]
    for path in sorted((tmp_path / "eager").iterdir()):
        same = read_picture(path).pixels, read_picture(tmp_path / "onnxruntime" / path.name).pixels
        assert float((same[0] - same[1]).abs().max()) <= 1 / 255 + 1e-6
    code, _, err = shell(*command, "-o", "few")
    assert code == 0 and made == ["onnxruntime"], err  # a compiled runtime does not pay for four pictures
    monkeypatch.setattr(stylize, "COMPILED_FROM", 4)
    code, _, err = shell(*command, "-o", "many")
    assert code == 0 and len(made) == 2, err
    code, _, err = shell(*command, "--runtime", "onnxruntime", "--max-memory", "4g", "-o", "no")
    assert code == 2 and "--max-memory or --runtime" in err
    code, _, err = shell("style", photo_folder, "--style", content[0], "--method", "colour", "--runtime", "openvino",
                         "-o", "no")  # fmt: skip
    assert code == 2 and "leave --runtime out" in err
    with pytest.raises(UsageError, match="compiled runtime"):
        style_runtime.preparation("eager")


def test_large_weights_lose_their_last_bit_and_nothing_else() -> None:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    large, small, few = (rng.integers(-64, 64, n).astype(np.int8) for n in (600, 40, 600))
    few = few // 5
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(v, n) for n, v in
                                                (("large", large), ("small", small), ("few", few))])  # fmt: skip
    graph.initializer.append(numpy_helper.from_array(rng.normal(size=600).astype(np.float32), "floats"))
    model = helper.make_model(graph)
    before = {t.name: numpy_helper.to_array(t).copy() for t in model.graph.initializer}
    evened(model)
    after = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert (after["large"] % 2 == 0).all() and np.abs(after["large"].astype(int) - large).max() == 1
    assert all(np.array_equal(after[name], before[name]) for name in ("small", "few", "floats"))
    assert all(t.data_type == TensorProto.INT8 for t in model.graph.initializer if t.name != "floats")


def test_rows_of_floats_keep_nine_bits_and_single_numbers_all() -> None:
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    row = np.concatenate([rng.normal(size=300) * 10.0 ** rng.integers(-9, 9, 300), [0.0, 1.0, -0.5]]).astype(np.float32)
    few, steps = rng.normal(size=4).astype(np.float32), rng.integers(-64, 64, 600).astype(np.int8)
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(v, n) for n, v in
                                                (("row", row), ("few", few), ("steps", steps))])  # fmt: skip
    model = helper.make_model(graph)
    rounded(model)
    after = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert np.array_equal(after["few"], few) and np.array_equal(after["steps"], steps)
    assert np.abs(after["row"] - row).max() > 0
    assert (np.abs(after["row"] - row) <= 2.0**-9 * np.abs(row)).all()
    assert np.array_equal(after["row"][-3:], row[-3:])
    assert len(zlib.compress(after["row"].tobytes(), 9)) < 0.75 * len(zlib.compress(row.tobytes(), 9))


def test_a_packaged_style_is_the_same_in_every_runtime_of_a_processor_with_bf16(
    content: list[Path], tmp_path: Path
) -> None:
    # OpenVINO takes bf16 there unless it is told not to, and is 3 grey levels off.
    found = export_style(fixed_style("wave"), tmp_path / "wave.onnx", photos=content)
    assert found.levels_max <= 1
