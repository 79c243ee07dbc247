"""`regraft style translate` and `regraft style apply` as a person uses them; the run, artifact and figures behind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import Shell
from hostile_pictures import scene
from regraft.adaptation.evidence.distances import squared_mmd
from regraft.core.artifact import read_manifest, write_artifact
from regraft.core.errors import ArtifactError, UsageError
from regraft.core.files import sha256_file
from regraft.core.listener import Listener
from regraft.core.rundir import RunDirectory
from regraft.images.picture import Picture, read_picture, write_picture
from regraft.images.square_crop import SquareCrop
from regraft.recipes.translate.figures import nearer_share
from regraft.recipes.translate.job import run_translate
from regraft.recipes.translate.options import TranslateConfig
from regraft.recipes.translate.pictures import held_out, square_spec
from regraft.style.translation.cyclegan import load_translator
from swapped_shapes import write_shapes
from test_engine_resume import RunStoppedError

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = {
    "size": 16, "width": 2, "blocks": 0, "discriminator_width": 2, "discriminator_layers": 1, "scales": 1, "pool": 4,
    "device": "cpu", "precision": "fp32",
}  # fmt: skip
OPTIONS = [text for name, value in TINY.items() for text in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a/ with 14 pictures and b/ with 11, of various widths; one broken file in a/."""
    root = tmp_path_factory.mktemp("sets")
    write_shapes(root / "a", "a", 14)
    write_shapes(root / "b", "b", 11)
    whole = (root / "a" / "000.png").read_bytes()
    (root / "a" / "cut.png").write_bytes(whole[: len(whole) // 2])
    return root


@pytest.fixture(scope="module")
def run(folders: Path) -> Path:
    config = TranslateConfig.checked(a=folders / "a", b=folders / "b", epochs=1, **TINY)
    return run_translate(config, folder=folders / "run")


def test_a_run_has_all_that_it_promises(run: Path, folders: Path) -> None:
    assert {"DONE", "report.json", "report.html", "artifact", "config.yaml", "env.json", "split.json"} <= {
        path.name for path in run.iterdir()
    }
    assert not (run / "work").exists() and not (folders / "LAST").exists()
    report = json.loads((run / "report.json").read_text())
    assert report["format"] == "regraft.translation/1"
    assert report["domains"]["A"]["n_train"] == 10 and report["domains"]["A"]["n_held_out"] == 4
    assert report["domains"]["B"]["n_train"] == 7 and report["steps"] == 10
    assert any("cut.png" in " ".join(f["paths"]) for f in report["domains"]["A"]["audit"]["findings"])
    assert [one["step"] for one in report["history"]] == [0, 10]
    assert 0 <= report["discriminator_accuracy"] <= 1
    for figures in report["directions"].values():
        assert set(figures) == {
            "cycle_ssim", "identity", "diversity", "mmd2_untranslated", "mmd2", "nearer", "helped",
        }  # fmt: skip
        assert figures["mmd2_untranslated"] > 0.1 and figures["helped"] is not True  # red, blue; ten steps of nothing
    hashes = json.loads((run / "split.json").read_text())["rounds"][0]
    assert not set(hashes["a_train"]) & set(hashes["a_test"])
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 2 * 4 * 3 and page.count("<svg") == 2
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert report["verdict"].split(";")[0][:60] in page.replace("&gt;", ">")
    assert report["verdict"].endswith("(--from-picture --cycle-weight 2 --identity-weight 0).")  # neither way helped


def test_the_command_prints_its_report_and_applies_both_ways(folders: Path, shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    code, out, err = shell("style", "translate", folders / "a", folders / "b", "-o", folder, "--epochs", 0.5, *OPTIONS,
                           "--json")  # fmt: skip
    assert code == 0, err
    assert json.loads(out) == json.loads((folder / "report.json").read_text())
    assert "cut.png" in err and "5 steps" in err
    photo = torch.from_numpy(np.array(scene(np.random.default_rng(0)))).permute(2, 0, 1).float() / 255
    write_picture(Picture(photo, photo[:1]), tmp_path / "photo.png")
    code, out, err = shell("style", "apply", folder, "photo.png", "-o", "there.png")
    assert code == 0, err
    assert out.strip() == "there.png" and "120 × 90 px, translated and written at 21 × 16 px" in " ".join(err.split())
    there = read_picture(tmp_path / "there.png")
    assert there.size_px == (16, 21) and there.alpha is not None
    code, out, err = shell("style", "apply", folder / "artifact", "photo.png", "-o", "back.png", "--direction", "BtoA",
                           "--size", 50, "--json")  # fmt: skip
    assert code == 0, err
    assert json.loads(out) == [{"content": "photo.png", "output": "back.png", "size_px": [38, 50], "error": None}]
    assert read_picture(tmp_path / "back.png").size_px == (38, 50)
    code, _, err = shell("style", "apply", folder, "photo.png", "-o", "back.png")
    assert code == 2 and "--force" in err
    (tmp_path / "photos").mkdir()
    shutil.copy(tmp_path / "photo.png", tmp_path / "photos" / "1.png")
    (tmp_path / "photos" / "2.jpg").write_bytes(b"\xff\xd8\xff\xe0nothing")
    code, out, err = shell("style", "apply", folder, "photos", "-o", "done")
    assert code == 0 and [path.name for path in (tmp_path / "done").iterdir()] == ["1.png"]
    assert "2.jpg" in err and "left out" in err


def test_translation_follows_the_artifact(run: Path) -> None:
    translator = load_translator(run / "artifact")
    assert translator.domains == ("a", "b") and translator.side_px == 16
    x = torch.rand(3, 30, 41)
    found = translator.translate(x, "AtoB", long_px=41)
    with torch.no_grad():
        expected = translator.generators["AtoB"](x[None] * 2 - 1)[0] / 2 + 0.5
    assert torch.allclose(found, expected)
    assert not torch.allclose(translator.translate(x, "BtoA", long_px=41), found, atol=1e-3)
    with pytest.raises(UsageError, match="Did you mean 'AtoB'"):
        translator.translate(x, "atob")


def changed(folder: Path, out: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> Path:
    """The artifact with something else in it, hashed anew."""
    manifest, tensors = read_manifest(folder), load_file(folder / "model.safetensors")
    change(manifest, tensors)
    return write_artifact(out, {k: v for k, v in manifest.items() if k not in ("format", "files")}, tensors)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m, t: m["backbone"]["options"].update(width=1 << 20), "2 to 256"),
        (lambda m, t: m["backbone"]["options"].update(depth=3), "is described by"),
        (lambda m, t: m["backbone"].update(family="other"), "does not know"),
        (lambda m, t: m.update(backbone="cyclegan"), "does not know"),
        (lambda m, t: m.update(labels=["one"]), "cannot be used"),
        (lambda m, t: m["input_spec"].update(shape=[3, 0, 0]), "pictures of 0 px"),
        (lambda m, t: m.update(input_spec={}), "cannot be used"),
        (lambda m, t: m["task"].update(kind="image-classification"), "takes one of `regraft style translate`"),
        (lambda m, t: m["backbone"]["options"].update(blocks=1), "missing or too many"),
        (lambda m, t: m["backbone"]["options"].update(width=4), "do not fit"),
        (lambda m, t: t["AtoB.encoder.1.weight"].fill_(float("nan")), "no numbers"),
        (lambda m, t: t.pop("BtoA.encoder.1.weight"), "missing or too many"),
    ],
)
def test_an_artifact_that_does_not_fit_itself_is_refused(
    run: Path, tmp_path: Path, change: Any, words: str
) -> None:  # fmt: skip
    with pytest.raises(ArtifactError, match=words):
        load_translator(changed(run / "artifact", tmp_path / "other", change))


def test_an_altered_file_is_refused(run: Path, tmp_path: Path, shell: Shell) -> None:
    shutil.copytree(run / "artifact", tmp_path / "artifact")
    weights = tmp_path / "artifact" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    code, _, err = shell("style", "apply", "artifact", "x.png", "-o", "y.png")
    assert code == 1 and "altered or cut off" in " ".join(err.split())
    code, _, err = shell("predict", run, "x.png")  # another command's model
    assert code == 1 and "picture-translation" in err


class Stopper(Listener):
    """Raises once the training has taken so many steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def progress(self, what: str, done: float, total: float, **other: Any) -> None:
        if what.startswith("translation") and done == self.step:
            raise RunStoppedError


def test_a_stopped_run_ends_like_one_that_was_not(run: Path, folders: Path, tmp_path: Path) -> None:
    # The same options but for the time between checkpoints, so that there is one to go on from.
    config = TranslateConfig.checked(a=folders / "a", b=folders / "b", epochs=1, checkpoint_every_s=1e-9, **TINY)
    with pytest.raises(RunStoppedError):
        run_translate(config, folder=tmp_path / "stopped", listener=Stopper(6))
    saved = tmp_path / "stopped" / "work" / "checkpoints" / "LAST"
    assert saved.read_text() == "step-00000005.pt\n"
    run_translate(config, folder=tmp_path / "stopped")
    weights = [sha256_file(path / "artifact" / "model.safetensors") for path in (run, tmp_path / "stopped")]
    assert weights[0] == weights[1]
    with pytest.raises(UsageError, match="holds a finished run"):
        run_translate(config, folder=tmp_path / "stopped")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("a", "a"), 2, "two folders with different pictures"),
        (("a", "none"), 1, "There is no folder none"),
        (("a", "few"), 1, "few has"),
        (("a", "b", "--test-a", "few"), 2, "--test-a and --test-b together"),
        (("a", "b", "--epochs", "1", "--budget", "1m"), 2, "--epochs or --budget, not both"),
        (("a", "b", "--size", "16", "--scales", "3"), 2, "px or more for 3 scales"),
        (("a", "b", "--size", "30"), 2, "--size"),
        (("a", "b", "--upsampling", "bilinear"), 2, "--upsampling"),
        (("a", "b", "-o", "a"), 2, "is no run"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_mistakes_are_a_sentence(
    folders: Path, tmp_path: Path, shell: Shell, arguments: tuple[str, ...], code: int, words: str
) -> None:
    for name in ("a", "b"):
        os.symlink(folders / name, tmp_path / name)
    write_shapes(tmp_path / "few", "b", 4)
    found, out, err = shell("style", "translate", *arguments)
    assert found == code, err
    assert words in " ".join(err.split()), err
    assert out == "" and "Traceback" not in err and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("none", "x.png"), 1, "There is no run at none"),
        (("run", "x.png", "--direction", "b"), 2, "There is no direction 'b'"),
        (("run", "x.png", "--size", "5"), 2, "--size takes 16 or more"),
        (("run", "x.png"), 1, "x.png does not exist"),
    ],
)
def test_mistakes_of_applying_are_a_sentence(
    run: Path, shell: Shell, arguments: tuple[str, ...], code: int, words: str
) -> None:
    found, out, err = shell("style", "apply", *(run if one == "run" else one for one in arguments), "-o", "out.png")
    assert found == code, err
    assert words in " ".join(err.split()) and out == "" and "Traceback" not in err


# ---- parts ----------------------------------------------------------------------------------------------------------


def test_what_is_held_out_keeps_units_whole() -> None:
    units = [f"u{i // 3}" for i in range(90)]
    held = held_out(units, seed=1)
    assert 9 <= held.sum() <= 11 and held.sum() % 3 == 0
    assert all(len({bool(held[i]) for i, unit in enumerate(units) if unit == name}) == 1 for name in set(units))
    assert np.array_equal(held, held_out(units, seed=1)) and not np.array_equal(held, held_out(units, seed=2))
    assert held_out([str(i) for i in range(9)], seed=0).sum() == 4
    assert held_out([str(i) for i in range(5000)], seed=0).sum() == 200


def test_squares_keep_proportions_and_colours() -> None:
    y, x = torch.meshgrid(torch.arange(60), torch.arange(100), indexing="ij")
    picture = torch.stack([2 * x, 2 * y, torch.full_like(x, 7)]).to(torch.uint8)
    crop = SquareCrop(square_spec(30), flip=False)
    lefts = set()
    for seed in range(40):
        found = crop(picture, np.random.default_rng(seed)).float()
        assert found.shape == (3, 30, 30) and bool((found[2] == 7).all())
        across, down = found[0, 0, -3] - found[0, 0, 2], found[1, -3, 0] - found[1, 2, 0]
        side = float(across) / 2 * 30 / 25
        assert float(across) == pytest.approx(float(down), abs=3) and 60 * 8 / 9 - 2 <= side <= 62
        lefts.add(int(found[0, 0, 0]) // 8)
    assert len(lefts) > 5  # all over the width
    mirrored = [bool(np.diff(SquareCrop(square_spec(30))(picture, np.random.default_rng(s))[0, 0].numpy().astype(int))
                     .sum() < 0) for s in range(60)]  # fmt: skip
    assert 15 < sum(mirrored) < 45


def test_nearer_is_by_the_squared_mmd_of_halves() -> None:
    draw = np.random.default_rng(0)
    far, near, wanted = draw.normal(3, 1, (16, 4)), draw.normal(0.2, 1, (16, 4)), draw.normal(0, 1, (20, 4))
    assert nearer_share(far, near, wanted, 4.0) == 1.0 and nearer_share(near, far, wanted, 4.0) == 0.0
    assert nearer_share(far, far, wanted, 4.0) == 0.5
    # With four rows a side a half is a pair: every one by hand.
    a, b, w = far[:4], far[:4] - draw.normal(0.1, 0.8, (4, 4)), wanted[:4]
    pairs = [(i, j) for i in range(4) for j in range(i)]
    won = [
        squared_mmd(b[list(i)], w[list(j)], scale=5.0) < squared_mmd(a[list(i)], w[list(j)], scale=5.0)
        for i in pairs for j in pairs
    ]  # fmt: skip
    assert 0.2 < np.mean(won) < 1
    assert nearer_share(a, b, w, 5.0) == pytest.approx(float(np.mean(won)), abs=0.08)


def test_a_run_in_a_folder_of_its_own(tmp_path: Path) -> None:
    run, resumed = RunDirectory.at(tmp_path / "run", {"a": 1})
    assert not resumed and (run.path / "run.json").is_file()
    assert RunDirectory.at(tmp_path / "run", {"a": 1})[1]
    with pytest.raises(UsageError, match="with other options"):
        RunDirectory.at(tmp_path / "run", {"a": 2})
    run.done()
    with pytest.raises(UsageError, match="a finished run"):
        RunDirectory.at(tmp_path / "run", {"a": 1})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("Dear Ada")
    with pytest.raises(UsageError, match="is no run"):
        RunDirectory.at(tmp_path / "full", {"a": 1})
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter.txt"]
    (tmp_path / "empty").mkdir()
    assert RunDirectory.at(tmp_path / "empty", {"a": 1})[0].path == tmp_path / "empty"
