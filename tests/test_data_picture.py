"""Pictures as people keep them: 8 and 16 bits, alpha, profiles, turned, broken; and as they are written."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import hostile_pictures
from regraft.core.errors import UnreadableError, UsageError
from regraft.images.colour_profile import from_srgb, srgb_profile, to_srgb
from regraft.images.deep import encode_png16, tiff_depth
from regraft.images.picture import Picture, read_picture, write_picture

P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))


def curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def table_curve(gamma: float) -> bytes:
    entries = [round(65_535 * (i / 255) ** gamma) for i in range(256)]
    return b"curv" + bytes(4) + struct.pack(">I256H", 256, *entries)


def parametric(form: int, *values: float) -> bytes:
    return b"para" + bytes(4) + struct.pack(f">HH{len(values)}i", form, 0, *(round(65_536 * v) for v in values))


def profile_of(primaries: tuple[tuple[float, ...], ...], trc: bytes, space: bytes = b"RGB ") -> bytes:
    """A display profile of a matrix and one curve, made by hand."""
    tags = {b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63_190, 65_536, 54_061)}
    for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True):
        tags[name] = b"XYZ " + bytes(4) + struct.pack(">3i", *(round(65_536 * v) for v in xyz))
    tags |= {name: trc for name in (b"rTRC", b"gTRC", b"bTRC")}
    if space == b"GRAY":
        tags = {b"wtpt": tags[b"wtpt"], b"kTRC": trc}
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags |= {b"desc": text, b"cprt": b"text" + bytes(4) + b"none\0"}
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += struct.pack(">4sII", name, at + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", at + len(body), bytes(4), 0x02100000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63_190, 65_536, 54_061)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body


def by_pillow(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """The same conversion by lcms, 8 bits."""
    found = ImageCms.profileToProfile(
        Image.fromarray(pixels),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    assert found is not None
    return np.asarray(found)


SRGB_CURVE = parametric(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


@pytest.mark.parametrize(
    ("trc", "tolerance"),
    [(curve(2.2), 2), (table_curve(1.8), 2), (SRGB_CURVE, 2), (parametric(0, 2.2), 2)],
    ids=["gamma", "table", "srgb", "parametric"],
)
def test_a_wide_profile_becomes_srgb_as_lcms_does_it(trc: bytes, tolerance: int) -> None:
    pixels = np.random.default_rng(0).integers(20, 236, (24, 32, 3), dtype=np.uint8)
    profile = profile_of(P3, trc)
    found = to_srgb(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, profile)
    right = by_pillow(pixels, profile)
    gap = np.abs(np.rint(found.permute(1, 2, 0).numpy() * 255) - right.astype(int))
    assert gap.max() <= tolerance
    assert np.abs(pixels.astype(int) - right).max() > 10, "the profile must change something for this to say anything"


def test_a_grey_profile_is_followed_and_an_unusable_one_is_not(caplog: pytest.LogCaptureFixture) -> None:
    grey = torch.linspace(0.2, 0.9, 30).view(1, 5, 6).expand(3, -1, -1)
    found = to_srgb(grey, profile_of(P3, curve(1.0), b"GRAY"))
    linear = grey.numpy().astype(float)
    np.testing.assert_allclose(found.numpy(), 1.055 * linear ** (1 / 2.4) - 0.055, atol=1e-5)
    whole = profile_of(P3, curve(2.2))
    for damaged in (whole[:200], whole[:128] + b"\xff" * 8, b"", profile_of(P3, b"curv" + bytes(4) + b"\xff" * 8)):
        assert torch.equal(to_srgb(grey, damaged), grey)
    assert "damaged colour profile" in caplog.text


def test_eight_bits_come_back_as_they_were(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (9, 13, 4), dtype=np.uint8)
    Image.fromarray(pixels[..., :3]).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "b.png")
    for name, channels in (("a", 3), ("b", 4)):
        read = read_picture(tmp_path / f"{name}.png")
        assert read.bits == 8 and (read.alpha is None) == (channels == 3)
        for suffix in (".png", ".tif"):
            out = tmp_path / f"{name}-out{suffix}"
            write_picture(read, out)
            with Image.open(out) as again:
                np.testing.assert_array_equal(np.asarray(again), pixels[..., :channels])
                assert again.info["icc_profile"] == srgb_profile()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_come_back_as_they_were(tmp_path: Path, suffix: str, channels: int) -> None:
    pytest.importorskip("tifffile")
    values = torch.from_numpy(np.random.default_rng(2).integers(0, 65_536, (channels, 7, 11))).float() / 65_535
    picture = Picture(values[:3], values[3:] if channels == 4 else None, bits=16)
    write_picture(picture, tmp_path / f"a{suffix}")
    found = read_picture(tmp_path / f"a{suffix}")
    assert found.bits == 16
    # Our own profile is sRGB with a curve of its own rounding: half a step of 8 bits is 128 of 65,535.
    assert (found.pixels - picture.pixels).abs().max() < 1e-3
    if channels == 4:
        assert torch.equal(found.alpha, picture.alpha)


def test_a_sixteen_bit_png_by_the_formats_own_rules() -> None:
    pixels = np.random.default_rng(3).integers(0, 65_536, (6, 5, 3)).astype(np.uint16)
    data = encode_png16(pixels, b"profile")
    at, chunks = 8, {}
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (5, 6, 16, 2, 0, 0, 0)
    assert zlib.decompress(chunks[b"iCCP"].partition(b"\0\0")[2]) == b"profile"
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(6, 31)
    assert (rows[:, 0] == 2).all()
    raw = np.cumsum(rows[:, 1:].astype(np.uint64), axis=0).astype(np.uint8)  # "up": each byte plus the one above it
    np.testing.assert_array_equal(raw.view(">u2").reshape(6, 5, 3), pixels)


def test_a_wide_sixteen_bit_picture_is_converted_in_full_depth(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    ramp = np.linspace(20_000, 20_600, 300).astype(np.uint16)
    pixels = np.stack([ramp, np.full_like(ramp, 30_000), np.full_like(ramp, 40_000)], axis=1)[None]
    profile = profile_of(P3, curve(2.2))
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", iccprofile=profile)
    data = (tmp_path / "a.tif").read_bytes()
    assert tiff_depth(data) == 16
    found = read_picture(tmp_path / "a.tif").pixels[0, 0]
    assert len(found.unique()) > 250, "600 steps of 16 bits are 3 of 8 bits: more must be left"
    gamma = (pixels[0].astype(float) / 65_535) ** 2.2
    srgb = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
    linear = gamma @ np.array(P3) @ np.linalg.inv(srgb).T
    np.testing.assert_allclose(found.numpy(), 1.055 * linear[:, 0] ** (1 / 2.4) - 0.055, atol=2e-3)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_picture_is_read_upright(tmp_path: Path, orientation: int) -> None:
    data, upright, tolerance = hostile_pictures.turned(np.random.default_rng(4), orientation)
    (tmp_path / "a.jpg").write_bytes(data)
    found = (read_picture(tmp_path / "a.jpg").pixels * 255).permute(1, 2, 0).numpy()
    assert found.shape == upright.shape
    assert np.abs(found - upright).mean() < tolerance


def test_broken_files_are_one_sentence_and_unusual_ones_are_read(tmp_path: Path) -> None:
    for made in hostile_pictures.build(tmp_path, each=5, good=2):
        if made.fate == "named":
            with pytest.raises(UnreadableError) as caught:
                read_picture(made.path)
            assert str(made.path) in str(caught.value) and "\n" not in str(caught.value)
        elif made.kind not in ("rgba", "palette"):  # there alpha is kept, so the colours are those below it
            found = (read_picture(made.path).pixels * 255).permute(1, 2, 0).numpy()
            assert np.abs(found - made.expected).mean() <= made.tolerance + 0.5, made.kind


def test_a_deep_file_that_is_cut_short_is_one_sentence(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pixels = np.random.default_rng(5).integers(0, 65_536, (40, 40, 3)).astype(np.uint16)
    whole = io.BytesIO()
    tifffile.imwrite(whole, pixels, photometric="rgb", compression="zlib")
    png = encode_png16(pixels, srgb_profile())
    for name, data in (("a.png", png[: len(png) // 2]), ("a.tif", whole.getvalue()[:3000])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UnreadableError):
            read_picture(tmp_path / name)


def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path) -> None:
    pixels = np.zeros((40, 50, 3), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(encode_png16(pixels, srgb_profile()))
    with pytest.raises(UnreadableError, match="claims 50 × 40 px"):
        read_picture(tmp_path / "a.png", max_pixels=1999)
    assert read_picture(tmp_path / "a.png", max_pixels=2000).size_px == (40, 50)


def test_alpha_is_laid_over_white_where_the_format_has_none(tmp_path: Path) -> None:
    picture = Picture(torch.zeros(3, 8, 8), torch.full((1, 8, 8), 0.25))
    write_picture(picture, tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as found:
        assert np.abs(np.asarray(found).astype(int) - 191).max() <= 2
    write_picture(picture, tmp_path / "a.webp")
    assert read_picture(tmp_path / "a.webp").alpha is not None


def test_nothing_is_replaced_without_being_told(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_picture(Picture(torch.zeros(3, 4, 4)), path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="--force"):
        write_picture(Picture(torch.ones(3, 4, 4)), path)
    assert path.read_bytes() == before
    write_picture(Picture(torch.ones(3, 4, 4)), path, force=True)
    assert float(read_picture(path).pixels.min()) > 0.999
    with pytest.raises(UsageError, match=r"\.png, \.tif"):
        write_picture(Picture(torch.ones(3, 4, 4)), tmp_path / "a.gif")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_picture_that_says_srgb_comes_back_bit_for_bit(tmp_path: Path) -> None:
    pixels = torch.rand(3, 80, 90, generator=torch.Generator().manual_seed(0))
    assert to_srgb(pixels, srgb_profile()) is pixels  # it once went through both curves and came back slightly changed
    moved = to_srgb(pixels, profile_of(P3, curve(2.2)))
    assert float((moved - pixels).abs().max()) > 0.02
    for bits in (8, 16):
        write_picture(Picture(pixels, bits=bits), tmp_path / "a.png", force=True)
        first = read_picture(tmp_path / "a.png")
        write_picture(first, tmp_path / "b.png", force=True)
        assert torch.equal(read_picture(tmp_path / "b.png").pixels, first.pixels)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_a_result_keeps_the_photos_profile_and_its_colours(tmp_path: Path, suffix: str) -> None:
    profile = profile_of(P3, curve(2.2))
    rows = np.linspace(60, 180, 24)[:, None] + np.array([0, 30, -40])
    Image.fromarray(np.repeat(rows[:, None], 32, axis=1).astype(np.uint8)).save(tmp_path / "a.png", icc_profile=profile)
    first = read_picture(tmp_path / "a.png")
    for bits in (8, 16):
        path = tmp_path / f"b{bits}{suffix}"
        write_picture(replace(first, bits=bits), path)
        with Image.open(path) as found:
            assert found.info["icc_profile"] == profile
        lost = (read_picture(path).pixels - first.pixels).abs()
        assert float(lost.max()) < (0.06 if suffix in (".jpg", ".webp") else 0.005) and float(lost.mean()) < 0.01


def test_the_way_back_into_a_profile_undoes_the_way_to_srgb() -> None:
    pixels = 0.2 + 0.6 * torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    for trc in (curve(1.0), curve(2.2), curve(1.8)):
        wide = profile_of(P3, trc)
        there = from_srgb(pixels, wide)
        assert there is not None and float((there - pixels).abs().max()) > 0.01
        assert torch.allclose(to_srgb(there, wide), pixels, atol=2e-4)
    assert from_srgb(pixels, srgb_profile()) is pixels


def test_a_profile_without_a_way_back_gives_srgb(tmp_path: Path) -> None:
    whole = profile_of(P3, curve(2.2))
    falling = b"curv" + bytes(4) + struct.pack(">I4H", 4, 65_535, 40_000, 20_000, 0)
    useless = (whole[:200], b"", profile_of(P3, curve(2.2), b"GRAY"), profile_of(P3, falling), whole + bytes(5 << 20),
               profile_of(P3, b"curv" + bytes(4) + b"\xff" * 8))  # fmt: skip
    for i, profile in enumerate(useless):
        assert from_srgb(torch.rand(3, 4, 4), profile) is None
        write_picture(Picture(torch.rand(3, 4, 4), profile=profile), tmp_path / f"{i}.png")
        with Image.open(tmp_path / f"{i}.png") as found:
            assert found.info["icc_profile"] == srgb_profile()
