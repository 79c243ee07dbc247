"""`regraft style` as a person uses it: files in, files out, one sentence where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Shell
from hostile_pictures import scene
from regraft.core.errors import UsageError
from regraft.core.quantities import memory_bytes, size_px
from regraft.images.picture import read_picture

pytest.importorskip("torchmetrics", reason="torchmetrics, of the extra [style], gives the SSIM of the figures")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """photo.jpg (120 × 90 px), a.png and b.png to take styles from, sky.png: a mask, white on the left."""
    rng = np.random.default_rng(0)
    Image.fromarray(scene(rng)).save(tmp_path / "photo.jpg", quality=95)
    Image.fromarray((scene(rng) // 3).astype(np.uint8)).save(tmp_path / "a.png")
    Image.fromarray((255 - scene(rng) // 3).astype(np.uint8)).save(tmp_path / "b.png")
    mask = np.zeros((90, 120), dtype=np.uint8)
    mask[:, :60] = 255
    Image.fromarray(mask).save(tmp_path / "sky.png")
    return tmp_path


def test_a_photo_and_a_painting_give_a_picture(files: Path, shell: Shell) -> None:
    code, out, err = shell("style", "photo.jpg", "--style", "a.png", "-o", "out.png", "--steps", "3", "--size", "64")
    assert code == 0, err
    assert out.strip() == "out.png"
    assert read_picture(files / "out.png").size_px == (48, 64)
    assert "120 × 90 px, worked on and written at 64 × 48 px." in err.replace("\n", " ")
    before = (files / "out.png").read_bytes()
    code, _, err = shell("style", "photo.jpg", "--style", "a.png", "-o", "out.png", "--method", "colour")
    assert code == 2 and "--force" in err and (files / "out.png").read_bytes() == before
    code, _, err = shell("style", "--force", "--method", "colour", "photo.jpg", "--style", "a.png", "-o", "out.png")
    assert code == 0, err
    assert (files / "out.png").read_bytes() != before


def test_sizes_and_amounts_by_name() -> None:
    assert [size_px(text) for text in ("4k", "8K", " 720p ", "640", 300, None)] == [3840, 7680, 1280, 640, 300, None]
    assert [memory_bytes(text) for text in ("2g", "1500m", "1.5GiB", "64KB", "4096", 7)] == [
        2 * 2**30, 1500 * 2**20, 3 * 2**29, 64 * 2**10, 4096, 7,
    ]  # fmt: skip
    for text in ("", "g", "-2g", "2x", "0", "2 gb", "1e9"):
        with pytest.raises(UsageError, match="as in 2g or 1500m"):
            memory_bytes(text)
    for text in ("", "4 k", "-5", "1.5", "0x10", "9" * 10):
        with pytest.raises(UsageError, match="number of px or one of"):
            size_px(text)


def test_a_named_size(files: Path, shell: Shell) -> None:
    code, _, err = shell(
        "style", "photo.jpg", "--style", "a.png", "-o", "o.jpg", "--method", "colour", "--size", "720p"
    )
    assert code == 0, err
    assert read_picture(files / "o.jpg").size_px == (960, 1280)


def test_strength_styles_and_masks(files: Path, shell: Shell) -> None:
    common = ("style", "photo.jpg", "--method", "colour")
    photo = read_picture(files / "photo.jpg").pixels
    assert shell(*common, "--style", "a.png", "-o", "none.png", "--strength", "0")[0] == 0
    assert (read_picture(files / "none.png").pixels - photo).abs().max() < 0.004
    assert shell(*common, "--style", "a.png:0.7", "--style", "b.png:0.3", "-o", "mix.png")[0] == 0
    dark, light = (float(read_picture(files / f"{name}.png").pixels.mean()) for name in "ab")
    assert float(read_picture(files / "mix.png").pixels.mean()) == pytest.approx(0.7 * dark + 0.3 * light, abs=0.03)
    assert shell(*common, "--style", "a.png", "--style", "b.png", "--mask", "sky.png:a.png", "-o", "m.png")[0] == 0
    masked = read_picture(files / "m.png").pixels
    assert float(masked[:, :, :50].mean()) < float(masked[:, :, 70:].mean()) - 0.3


def test_keep_colour_and_intermediate_pictures(files: Path, shell: Shell) -> None:
    code, _, err = shell(
        "style", "photo.jpg", "--style", "a.png", "-o", "out.png", "--keep-colour", "--steps", "4", "--every", "2"
    )
    assert code == 0, err
    assert sorted(p.name for p in (files / "out-steps").iterdir()) == ["000002.png", "000004.png"]


def test_the_dial_and_the_report(files: Path, shell: Shell) -> None:
    code, out, err = shell(
        "style", "photo.jpg", "--style", "a.png", "-o", "out.png", "--method", "reinhard", "--ssim", "0.9", "--report",
        "--json",
    )  # fmt: skip
    assert code == 0, err
    (found,) = json.loads(out)
    assert found["ssim"] >= 0.9 and 0 < found["strength"] < 1
    assert found["runs"] == 5 and found["latency_ms"]["p50"] > 0 and found["noise_psnr_drop_db"] is not None
    assert found["baselines"]["unstylised"]["ssim"] == pytest.approx(1, abs=1e-4)
    page = (files / "out.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 5 and 'type="range"' in page and "<svg" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "at least 0.9 was asked" in page


def test_a_page_escapes_names(files: Path, shell: Shell) -> None:
    name = "<b>&photo.png"
    Image.open(files / "photo.jpg").save(files / name)
    code, _, err = shell("style", f"./{name}", "--style", "a.png", "-o", "o.png", "--method", "colour", "--report")
    assert code == 0, err
    page = (files / "o.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;photo.png" in page and "<b>&photo" not in page


def test_evaluate_prints_the_promised_keys(files: Path, shell: Shell) -> None:
    shell("style", "photo.jpg", "--style", "a.png", "-o", "out.png", "--method", "colour")
    code, out, err = shell("style", "evaluate", "out.png", "--content", "photo.jpg", "--style", "a.png", "--json")
    assert code == 0, err
    found = json.loads(out)
    for key in ("ssim", "gram_cosine", "gram_cosine_unstylised", "lift", "content_distance"):
        assert isinstance(found[key], float), key
    assert found["latency_ms"] == {"p50": None, "p95": None}
    assert found["noise_psnr_drop_db"] is None and found["peak_memory_bytes"] is None
    assert found["gram_cosine"] == pytest.approx(found["baselines"]["colour transfer"]["gram_cosine"], abs=0.01)
    code, out, err = shell(
        "style", "evaluate", "out.png", "--content", "photo.jpg", "--style", "a.png", "--method", "colour",
        "--repeats", "2",
    )  # fmt: skip
    assert code == 0, err
    assert "2 run(s): p50" in out and "sigma_px 1.5" in out and "colour transfer" in out


def test_a_folder_goes_on_past_a_broken_file(files: Path, shell: Shell) -> None:
    (files / "photos").mkdir()
    Image.open(files / "photo.jpg").save(files / "photos" / "1.jpg")
    Image.open(files / "photo.jpg").save(files / "photos" / "3.bmp")
    (files / "photos" / "2.jpg").write_bytes((files / "photo.jpg").read_bytes()[:500])
    code, out, err = shell("style", "photos", "--style", "a.png", "-o", "done", "--method", "colour")
    assert code == 0, err
    assert sorted(p.name for p in (files / "done").iterdir()) == ["1.jpg", "3.png"]
    assert "2.jpg" in err and "left out" in err and len(out.splitlines()) == 2
    code, _, err = shell("style", "photos/2.jpg", "--style", "a.png", "-o", "x.png", "--method", "colour")
    assert code == 1 and "2.jpg" in err and not (files / "x.png").exists()


def test_alpha_and_depth_survive(files: Path, shell: Shell) -> None:
    from regraft.images.picture import Picture, write_picture

    photo = read_picture(files / "photo.jpg").pixels
    write_picture(Picture(photo, photo[:1], bits=16), files / "deep.png")
    assert shell("style", "deep.png", "--style", "a.png", "-o", "out.png", "--method", "colour")[0] == 0
    found = read_picture(files / "out.png")
    assert found.bits == 16 and found.alpha is not None
    assert (found.alpha - photo[:1]).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("photo.jpg", "--style", "none.jpg"), 1, "none.jpg does not exist"),
        (("none.jpg", "--style", "a.png"), 1, "none.jpg does not exist"),
        (("photo.jpg", "--style", "a.png", "--method", "gatis"), 2, "Did you mean 'gatys'"),
        (("photo.jpg", "--style", "a.png", "--method", "colour", "--steps", "5"), 2, "does not use steps"),
        (("photo.jpg", "--style", "a.png", "--method", "colour", "--perceptual", "scion"), 2, "no perceptual network"),
        (("photo.jpg", "--style", "a.png", "--ssim", "1.5"), 2, "--ssim"),
        (("photo.jpg", "--style", "a.png", "--ssim", "0.9", "--strength", "0.5"), 2, "not both"),
        (("photo.jpg", "--style", "a.png:-1"), 2, "weights of 0 or more"),
        (("photo.jpg", "--style", "a.png", "--mask", "sky.png:c.png"), 2, "one of the styles that were given: a.png"),
        (("photo.jpg", "--style", "a.png", "--perceptual-weights", "a.pth"), 2, "--perceptual NAME"),
        (
            ("photo.jpg", "--style", "a.png", "--perceptual", "squeezenet1_1", "--perceptual-weights", "a.png"),
            1,
            "read",
        ),
        (("photo.jpg", "a.png", "--style", "b.png"), 2, "need a folder to go to"),
        (("photo.jpg", "--style", "a.png", "--keep-colour-by", "hue"), 2, "keep-colour"),
        (("photo.jpg", "--style", "a.png", "--size", "huge"), 2, "one of 480p, 720p"),
        (("photo.jpg", "--style", "a.png", "--size", "20000"), 2, "--size"),
        (("photo.jpg", "--style", "a.png", "--max-memory", "lots"), 2, "as in 2g or 1500m, got 'lots'"),
        (("photo.jpg", "--style", "a.png", "--max-memory", "2g"), 2, "does not use max_memory_bytes"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, tuple) else None,
)
def test_mistakes_are_a_sentence(files: Path, shell: Shell, arguments: tuple[str, ...], code: int, words: str) -> None:
    found, out, err = shell("style", *arguments, "-o", "out.png")
    assert found == code, err
    assert words in " ".join(err.split()), err
    assert out == "" and "Traceback" not in err and not (files / "out.png").exists()


def test_a_result_never_replaces_its_own_photo(files: Path, shell: Shell) -> None:
    before = (files / "photo.jpg").read_bytes()
    for extra in ((), ("--force",)):
        code, _, err = shell("style", "photo.jpg", "--style", "a.png", "-o", "photo.jpg", "--method", "colour", *extra)
        assert code == 2 and "its own result" in err
    assert (files / "photo.jpg").read_bytes() == before


def test_help_names_the_command_and_its_neighbours(shell: Shell) -> None:
    code, out, _ = shell("style", "--help")
    assert code == 0 and "evaluate" in out and "--style" in out
    code, out, _ = shell("style", "evaluate", "--help")
    assert code == 0 and "--content" in out
