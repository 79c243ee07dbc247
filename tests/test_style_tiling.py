"""A picture in parts gives what it gives whole, whatever the network, within the memory that was allowed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from large_pictures import AdaptiveLike, EvenedOut, Local, Matched, Normed, Widened, drawn, photo
from regraft.core.errors import UsageError
from regraft.style.large import canvas as large
from regraft.style.large.canvas import held_bytes, stylize_large
from regraft.style.large.footprint import Footprint, LiveBytes, measure_footprint
from regraft.style.large.frozen_norms import Accumulator, Freezer, Statistics
from regraft.style.large.tiling import least_pixels, mapped_picture, plan_tiles, run_tiled
from regraft.style.methods.fixed import student_footprint
from regraft.style.networks.transfer_net import StudentNet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No room but for the smallest parts."""
    monkeypatch.setattr(large, "DEFAULT_PASS_BYTES", 0)


def whole(module: nn.Module, picture: Tensor, multiple: int = 1) -> Tensor:
    """module(picture), for a size off its grid with the last row and column repeated up to it."""
    height, width = picture.shape[-2:]
    padded = np.pad(picture.numpy(), ((0, 0), (0, -height % multiple), (0, -width % multiple)), mode="edge")
    with torch.no_grad():
        return module(torch.from_numpy(padded)[None])[0, :, :height, :width]


@pytest.mark.parametrize(
    ("module", "halo_px", "multiple_px", "any_size"),
    [
        (nn.Conv2d(3, 3, 5, padding=2), 2, 1, True),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 7, padding=3)), 4, 1, True),
        (nn.Conv2d(3, 3, 3, padding=4, dilation=4), 4, 1, True),
        (nn.Identity(), 0, 1, True),
        # One 3 × 3 and one 5 × 5 convolution at half the size: 3 places of 2 px.
        (drawn(Local), 6, 2, False),
        (drawn(EvenedOut), 6, 2, True),
        # Of a cell 4c … 4c + 3: px ± 1, halves 2c - 2 … 2c + 3, quarters c - 1 … c + 1, and so px 4c - 7 … 4c + 7.
        (drawn(Normed), 8, 4, False),
        (drawn(Widened), 4, 1, True),
        (nn.Sequential(nn.AvgPool2d(4), nn.Upsample(scale_factor=4)), 0, 4, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_the_footprint_is_what_the_layers_say(
    module: nn.Module, halo_px: int, multiple_px: int, any_size: bool
) -> None:
    found = measure_footprint(module)
    assert (found.halo_px, found.multiple_px, found.any_size) == (halo_px, multiple_px, any_size)


def test_weights_of_zero_do_not_hide_the_field_nor_the_grid() -> None:
    module = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 48, 3, padding=1), nn.ReLU(), nn.PixelShuffle(4)).eval()
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    found = measure_footprint(module)
    assert (found.halo_px, found.multiple_px) == (4, 4)


@pytest.mark.parametrize(
    "module",
    [
        nn.GroupNorm(1, 3),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample((64, 64))),
        nn.Conv2d(3, 3, 3),
        nn.Conv2d(3, 1, 1),
    ],
    ids=["group norm", "pooled to one", "smaller", "one channel"],
)
def test_what_cannot_be_tiled_is_refused(module: nn.Module) -> None:
    with pytest.raises(UsageError, match=r"cannot be run in parts|picture of the same size"):
        measure_footprint(module)


@pytest.mark.parametrize("size", [(96, 128), (101, 131), (67, 230), (200, 33)])
@pytest.mark.parametrize("kind", [Local, EvenedOut])
def test_a_local_network_in_parts_is_the_network(
    kind: type[nn.Module], size: tuple[int, int], small_parts: None
) -> None:
    module, picture = drawn(kind), photo(*size)
    seen: list[tuple[int, int]] = []
    found = stylize_large(module, picture, on_tile=lambda done, of: seen.append((done, of)))
    count = len(seen)
    assert count > 2 and seen == [(k, count) for k in range(1, count + 1)]
    assert found.std() > 0.05
    torch.testing.assert_close(found, whole(module, picture, 2 if kind is Local else 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(96, 128), (101, 131), (67, 230)])
@pytest.mark.parametrize(("kind", "multiple"), [(Normed, 4), (Widened, 1), (AdaptiveLike, 2)])
def test_exact_statistics_make_parts_agree_with_the_whole(
    kind: type[nn.Module], multiple: int, size: tuple[int, int], small_parts: None
) -> None:
    module, picture = drawn(kind), photo(*size)
    expected = whole(module, picture, multiple)
    torch.testing.assert_close(stylize_large(module, picture), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(whole(module, picture, multiple), expected, atol=0, rtol=0)  # thawed again
    footprint = measure_footprint(module)
    tiles = plan_tiles(size, footprint, least_pixels(size, footprint))
    apart = run_tiled(module, picture, tiles, footprint)
    assert float((apart - expected).abs().max()) > 0.02, "without them each part has a look of its own"


def test_low_statistics_are_those_of_the_reduced_picture(monkeypatch: pytest.MonkeyPatch, small_parts: None) -> None:
    monkeypatch.setattr(large, "LOW_PIXELS", 48 * 64)
    monkeypatch.setattr(large, "least_pixels", lambda size, footprint: 48 * 64)
    module, picture = drawn(AdaptiveLike), photo(96, 128)
    found = stylize_large(module, picture, statistics="low")
    layer = module.net[2]
    assert isinstance(layer, Matched)
    with torch.no_grad():
        features = module.net[:2](large.resize(picture, (48, 64))[None]).numpy().astype(float)
    mean, variance = (torch.from_numpy(of(features, axis=(0, 2, 3))) for of in (np.mean, np.var))
    layer.freeze_statistics(Statistics(mean, variance, features[0, 0].size))
    torch.testing.assert_close(found, whole(module, picture), atol=1e-4, rtol=0)


def test_no_seam_where_parts_meet(small_parts: None) -> None:
    smooth = torch.from_numpy(np.random.default_rng(1).random((3, 3, 4))).float()
    module, picture = drawn(Normed), large.resize(smooth, (128, 160))
    found = stylize_large(module, picture)
    footprint = measure_footprint(module)
    tiles = plan_tiles((128, 160), footprint, least_pixels((128, 160), footprint))

    def excess(result: Tensor) -> float:
        """The mean step across the borders of parts over the mean step elsewhere, of what the whole does not have."""
        steps = (result - whole(module, picture)).diff(dim=1).abs().mean(dim=(0, 2))
        at = sorted({tile.rows.start - 1 for tile in tiles} - {-1})
        assert len(at) == 3
        elsewhere = np.delete(steps.numpy(), at)
        return float(steps[at].mean() / (elsewhere.mean() + 1e-6))

    assert excess(found) < 1.5
    assert excess(run_tiled(module, picture, tiles, footprint)) > 3, "the measure sees seams"


def test_bands_of_a_map_in_any_order_give_its_statistics() -> None:
    features = torch.from_numpy(
        np.random.default_rng(0).normal(50, [[1.0], [0.01]], (1, 9, 2, 1)).transpose(0, 2, 1, 3)
    )
    features = features.float().repeat(1, 1, 1, 4)
    accumulator = Accumulator()
    for part in (features[:, :, 5:], features[:, :, :1], features[:, :, 1:5]):
        accumulator.add(part)
    found, values = accumulator.result(), features.double().numpy()
    assert found.count == 36
    np.testing.assert_allclose(found.mean.numpy(), values.mean(axis=(0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(found.variance.numpy(), values.var(axis=(0, 2, 3)), rtol=1e-3)


def test_a_module_is_afterwards_as_before_also_when_stopped(small_parts: None) -> None:
    module, picture = drawn(Normed).train(), photo(96, 128)
    module.net[0].eval()
    before = [(part.training, dict(part.__dict__)) for part in module.modules()]

    def stop(done: int, of: int) -> None:
        if done == of - 1:  # all statistics are held by then
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stylize_large(module, picture, on_tile=stop)
    for part, (training, attributes) in zip(module.modules(), before, strict=True):
        assert part.training == training and part.__dict__.keys() == attributes.keys()
        assert not part._forward_pre_hooks


def test_layers_that_cannot_be_held_are_refused() -> None:
    norm = nn.InstanceNorm2d(3)
    with pytest.raises(UsageError, match="normalises twice"):
        Freezer(nn.Sequential(norm, nn.ReLU(), norm))

    class Own(nn.InstanceNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    with pytest.raises(UsageError, match="forward of its own"):
        Freezer(Own(3))
    assert not Freezer(nn.InstanceNorm2d(3, track_running_stats=True).eval()).layers, "these are local already"


@pytest.mark.parametrize("most", [2_000, 5_000, 20_000, 10**9])
@pytest.mark.parametrize("size", [(97, 211), (300, 40), (31, 17), (256, 256)])
def test_parts_cover_every_px_once_and_keep_to_the_bound(size: tuple[int, int], most: int) -> None:
    footprint = Footprint(halo_px=8, multiple_px=4, any_size=True, fixed_bytes=0, bytes_per_px=1)
    if most < least_pixels(size, footprint):
        with pytest.raises(UsageError, match="px or more"):
            plan_tiles(size, footprint, most)
        return
    counts = np.zeros(size, dtype=int)
    for tile in plan_tiles(size, footprint, most):
        counts[tile.rows.start : tile.rows.stop, tile.columns.start : tile.columns.stop] += 1
        assert tile.outer_pixels <= most
        for span, side in ((tile.rows, size[0]), (tile.columns, size[1])):
            assert span.start % 4 == span.outer_start % 4 == 0
            assert span.outer_start == max(0, span.start - 8) and span.outer_stop >= min(side, span.stop + 8)
    assert (counts == 1).all()
    assert len(plan_tiles(size, footprint, size[0] * size[1])) == 1


def test_memory_of_a_pass_by_hand() -> None:
    """A convolution 3 → 8, ReLU, and back in float32: at most the picture and both maps of 8 at once."""
    module = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.ReLU(), nn.Conv2d(8, 3, 1, bias=False)).eval()
    found = measure_footprint(module)
    assert found.bytes_per_px == pytest.approx(1.25 * 4 * (3 + 8 + 8), rel=0.02) and found.fixed_bytes < 1000
    with LiveBytes() as live:
        a = torch.ones(1000)
        b = a * 2
        del a
        c = b.view(10, 100) + 1
        del b, c
    assert (live.peak, live.held) == (8000, 0)


def test_a_bound_on_memory_makes_more_parts_or_is_refused() -> None:
    module, picture = drawn(Local), photo(256, 320)
    footprint = replace(measure_footprint(module), bytes_per_px=20_000.0)  # so that 1 GiB is little
    counts = []
    for room in (2 * 2**30, 2**29):
        seen: list[int] = []
        bound = held_bytes(torch.device("cpu")) + room
        stylize_large(
            module, picture, footprint=footprint, max_memory_bytes=bound, on_tile=lambda _, n, seen=seen: seen.append(n)
        )
        counts.append(len(seen))
        tiles = plan_tiles((256, 320), footprint, int(room / 20_000))
        assert abs(len(tiles) - seen[-1]) <= 2
    assert counts[0] < counts[1]
    with pytest.raises(UsageError, match=r"50 MiB are too little for a picture of 320 × 256 px.* MiB are needed"):
        stylize_large(module, picture, footprint=footprint, max_memory_bytes=50 * 2**20)


def test_eight_bits_in_a_file(small_parts: None) -> None:
    module, picture = drawn(Local), (photo(96, 128) * 255).round().byte()
    with torch.no_grad():
        module.net[5].bias += 0.4
    with mapped_picture((96, 128)) as out:
        found = stylize_large(module, picture, out=out)
        assert found is out
        expected = (whole(module, picture.float() / 255).clamp(0, 1) * 255).round()
        assert int((found.int() - expected.int()).abs().max()) <= 1
        assert float((found.float() != expected).float().mean()) < 0.01 and found.float().std() > 5


def test_input_that_cannot_be_is_said() -> None:
    module = drawn(Local)
    with pytest.raises(UsageError, match=r"accepted is \(3, H, W\)"):
        stylize_large(module, torch.zeros(1, 3, 8, 8))
    with pytest.raises(UsageError, match="Did you mean 'exact'"):
        stylize_large(module, photo(8, 8), statistics="exakt")


@pytest.mark.parametrize("inner", [(64, 64, 64, 64), (9, 64, 3, 20), (16,), ()])
def test_a_students_footprint_is_known_without_measuring(inner: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = StudentNet(inner=inner).eval()
    torch.nn.init.normal_(net.paint.weight)
    torch.nn.init.zeros_(net.canvas)
    net.begin(torch.rand(3, 64, 64))
    known, measured = student_footprint(net), measure_footprint(net)
    assert (known.halo_px, known.multiple_px, known.any_size) == (measured.halo_px, measured.multiple_px, True)
    assert measured.peak_bytes(10**6) <= known.peak_bytes(10**6) <= 1.05 * measured.peak_bytes(10**6)
    unusual = StudentNet((16, 24, 64), (64,)).eval()
    laid = student_footprint(unusual)
    torch.nn.init.zeros_(unusual.canvas)
    unusual.begin(torch.rand(3, 64, 64))
    assert laid == measure_footprint(unusual)


def test_a_students_canvas_goes_on_from_tile_to_tile() -> None:
    torch.manual_seed(0)
    net = StudentNet().eval()
    torch.nn.init.normal_(net.paint.weight)
    content = torch.rand(3, 500, 700)
    with torch.no_grad():
        whole = net(content[None])[0]
    footprint = replace(student_footprint(net), fixed_bytes=0)
    tiles = plan_tiles(content.shape[-2:], footprint, 90_000)
    assert len(tiles) > 4
    torch.testing.assert_close(run_tiled(net, content, tiles, footprint), whole, atol=1e-4, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(net(content[None])[0], whole, atol=1e-6, rtol=0)  # its place is forgotten after

    def stop(number: int, count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tiled(net, content, tiles, footprint, on_tile=stop)
    with torch.no_grad():
        torch.testing.assert_close(net(content[None])[0], whole, atol=1e-6, rtol=0)  # and after an interruption
