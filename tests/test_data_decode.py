"""Decoding: Pillow's pixels, the right ones where Pillow alone is wrong, a reason where there are none."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from hostile_pictures import build, encoded, jpeg, scene
from regraft.core.errors import UnreadableError
from regraft.images import decode as decode_module
from regraft.images.decode import decode, decode_thumbnail
from regraft.images.header import read_header

SHARED = Path(os.environ.get("REGRAFT_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(params=["torchvision", "Pillow"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads plain JPEGs: torchvision, or Pillow where torchvision has no decoder."""
    if request.param == "Pillow":
        monkeypatch.setattr(torch.ops, "image", SimpleNamespace())
        monkeypatch.setattr(decode_module, "_DECODER", decode_module._torchvision_decoder())
        assert decode_module._DECODER is None
    elif decode_module._DECODER is None:
        pytest.skip("this torchvision has no decoder")


def pixels(path: Path) -> np.ndarray:
    picture = decode(path)
    assert picture.dtype.is_floating_point is False
    assert picture.shape[0] == 3
    return picture.permute(1, 2, 0).numpy().astype(int)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}, {"subsampling": 1, "quality": 60}])
def test_plain_jpegs_are_pillows_pixels(tmp_path: Path, options: dict[str, object]) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(scene(np.random.default_rng(1), 77, 131)).save(path, "JPEG", **options)
    assert np.abs(pixels(path) - np.asarray(Image.open(path).convert("RGB"))).max() <= 2


@pytest.mark.filterwarnings("error")
def test_no_warning_of_a_library_reaches_the_user(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(scene(np.random.default_rng(8))))
    assert decode(path).shape[0] == 3
    data = path.read_bytes()
    assert decode_thumbnail(data, read_header(data, "x", max_pixels=10**8), "x", 32).shape == (32, 32)


def test_real_jpegs_are_pillows_pixels() -> None:
    files = sorted((SHARED / "data/hymenoptera/val").rglob("*.jpg"))[::15]
    files += sorted((SHARED / "data/chest_xray/test").rglob("*.jpg"))[::40]
    if not files:
        pytest.skip(f"no shared pictures in {SHARED}")
    for path in files:
        assert np.abs(pixels(path) - np.asarray(Image.open(path).convert("RGB"))).max() <= 2, path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_orientation_is_pillows(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(scene(np.random.default_rng(2), 40, 64)).save(path, exif=exif)
    right = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")).astype(int)
    assert pixels(path).shape == right.shape
    assert np.abs(pixels(path) - right).max() <= 2


@pytest.mark.usefixtures("decoder")
def test_every_hostile_file_is_read_rightly_or_refused_for_its_reason(tmp_path: Path) -> None:
    for one in build(tmp_path, seed=3, good=0):
        if one.fate == "named":
            with pytest.raises(UnreadableError) as caught:
                decode(one.path)
            assert caught.value.kind == one.finding, one.path
            assert str(one.path) in str(caught.value)
        else:
            assert one.expected is not None
            assert np.abs(pixels(one.path) - one.expected).max() <= one.tolerance, one.path


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"])
def test_every_mode_that_a_format_stores(tmp_path: Path, mode: str) -> None:
    base = Image.fromarray(scene(np.random.default_rng(4), 40, 50))
    grey = np.asarray(base.convert("L"))
    deep = {
        "I;16": grey.astype(np.uint16) * 257,
        "I": grey.astype(np.int32) * 257,
        "F": grey.astype(np.float32) / 255,
    }
    picture = Image.fromarray(deep[mode]) if mode in deep else base.convert(mode)
    suffix = ".tif" if mode not in ("LA", "RGBA", "P") else ".png"
    path = tmp_path / f"a{suffix}"
    picture.save(path)
    if mode in deep:
        right = np.repeat(grey[..., None], 3, axis=2).astype(int)
    else:
        right = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert np.abs(pixels(path) - right).max() <= 1


def test_16_bit_grey_is_scaled_over_its_full_range_not_clipped(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 65_536, 64, dtype=np.uint16), (4, 1))
    path = tmp_path / "ramp.png"
    Image.fromarray(ramp).save(path)
    seen = pixels(path)[..., 0]
    assert np.abs(seen - ramp / 257).max() <= 0.5 + 1e-9
    assert len(np.unique(seen)) == 256


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_of_an_animation_the_first_frame_counts(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue", "lime")]
    path = tmp_path / "a.gif"
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], **options)
    assert (pixels(path) == [255, 0, 0]).all()


@pytest.mark.usefixtures("decoder")
def test_a_jpeg_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = jpeg(scene(np.random.default_rng(5)))
    for share in np.linspace(0.02, 0.999, 40):
        path = tmp_path / "cut.jpg"
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UnreadableError) as caught:
            decode(path)
        assert caught.value.kind == "truncated"


@pytest.mark.usefixtures("decoder")
def test_a_large_jpeg_cut_short_is_refused_at_reduced_scale_too() -> None:
    whole = jpeg(scene(np.random.default_rng(6), 1200, 1000))
    header = read_header(whole, "x", max_pixels=10**8)
    assert decode_thumbnail(whole, header, "x", 32).shape == (32, 32)
    for cut in (len(whole) // 2, len(whole) * 95 // 100, len(whole) - 2):
        with pytest.raises(UnreadableError) as caught:
            decode_thumbnail(whole[:cut], header, "x", 32)
        assert caught.value.kind == "truncated"


@pytest.mark.usefixtures("decoder")
def test_reduced_and_full_scale_give_the_same_thumbnail() -> None:
    picture = scene(np.random.default_rng(7), 1200, 1000)
    data = jpeg(picture)
    small = decode_thumbnail(data, read_header(data, "x", max_pixels=10**8), "x", 32).astype(int)
    grey = Image.open(io.BytesIO(data)).convert("L").resize((32, 32), Image.Resampling.BOX)
    assert np.abs(small - np.asarray(grey)).max() <= 2


def test_max_pixels_is_judged_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.new("RGB", (101, 100)), "PNG"))
    assert decode(path, max_pixels=10_100).shape == (3, 100, 101)
    with pytest.raises(UnreadableError) as caught:
        decode(path, max_pixels=10_099)
    assert caught.value.kind == "bomb"


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError) as caught:
        decode(tmp_path / "none.jpg")
    assert caught.value.kind == "missing"
