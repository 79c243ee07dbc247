"""The noise of a photo: how much is found, how much is left, and that photos without any stay as they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.core.types import Batch
from regraft.style import StyleSettings
from regraft.style.figures.evaluation import psnr_db
from regraft.style.methods.any_style import AdaIN
from regraft.style.methods.noise import calm, denoised, noise_level
from regraft.style.networks.arbitrary_net import ArbitraryNet
from regraft.style.networks.perceptual import perceptual, sprig_net
from regraft.style.training.task import ArbitraryTask, with_noise

pytestmark = pytest.mark.usefixtures("one_thread")


def photo(height: int = 96, width: int = 122, seed: int = 0) -> Tensor:
    """(1, 3, H, W): even areas with a border between them, and grey nowhere at its ends."""
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(seed))
    picture = 0.2 + 0.5 * F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    picture[..., : width // 3] = 0.9 - picture[..., : width // 3]
    return picture


def grainy(picture: Tensor, sigma: float, seed: int = 1) -> Tensor:
    return picture + sigma * torch.randn(picture.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1])
def test_the_level_is_found(sigma: float) -> None:
    assert float(noise_level(grainy(photo(), sigma))) == pytest.approx(sigma, rel=0.05)
    assert float(noise_level(photo())) < 2e-3


@pytest.mark.parametrize("size", [(96, 122), (95, 121), (37, 9), (4, 4)])
def test_noise_is_taken_away(size: tuple[int, int]) -> None:
    clean = photo(*size)
    noisy = grainy(clean, 0.04)
    found = denoised(noisy, torch.tensor([0.04]))
    assert found.shape == clean.shape
    if min(size) > 20:
        assert psnr_db(found, clean) > psnr_db(noisy, clean) + 6


def test_without_noise_to_take_away_patches_give_the_picture_back() -> None:
    assert torch.allclose(denoised(photo(), torch.zeros(1)), photo(), atol=1e-5)


def test_only_noisy_pictures_of_a_batch_are_changed() -> None:
    both = torch.cat([photo(), grainy(photo(seed=3), 0.06).clamp(0, 1)])
    found = calm(both)
    assert torch.equal(found[0], both[0]) and psnr_db(found[1], photo(seed=3)[0]) > psnr_db(both[1], photo(seed=3)[0])
    assert calm(both[:1]) is not None and torch.equal(calm(both[:1]), both[:1])
    assert torch.equal(calm(both[..., :3, :3]), both[..., :3, :3])  # smaller than a patch


def test_a_one_pass_method_paints_nearly_the_same_from_a_noisy_photo() -> None:
    torch.manual_seed(0)
    net = ArbitraryNet(sprig_net())
    torch.nn.init.normal_(net.paint.weight, std=0.002)
    style = [(photo(64, 64, seed=5)[0] ** 2, 1.0)]
    clean, noisy = photo()[0], grainy(photo(), 0.06)[0].clamp(0, 1)

    def painted(picture: Tensor) -> Tensor:
        return AdaIN(StyleSettings(network=net, passes=1)).stylize(picture, style)

    direct = net(noisy[None], net.code(style[0][0][None]), torch.zeros(1)).detach().clamp(0, 1)[0]
    assert psnr_db(painted(noisy), painted(clean)) > psnr_db(direct, painted(clean)) + 3


def test_what_noise_changes_is_a_loss_in_training_alone() -> None:
    torch.manual_seed(0)
    net = ArbitraryNet(sprig_net())
    torch.nn.init.normal_(net.paint.weight, std=0.02)
    batches = {
        "content": Batch(photo(64, 64).expand(3, -1, -1, -1)),
        "style": Batch(photo(64, 64, 7).repeat(3, 1, 1, 1)),
    }

    def loss(robustness: float, *, training: bool) -> tuple[float, bool]:
        task = ArbitraryTask(net, perceptual("sprig"), robustness=robustness).train(training)
        torch.manual_seed(1)
        out = task(batches, 0.0)
        return float(out.loss.detach()), "noise" in out.logs

    assert not loss(0.0, training=True)[1] and not loss(10.0, training=False)[1]
    assert loss(10.0, training=True)[1]
    level = noise_level(with_noise(photo().expand(4, -1, -1, -1)))
    assert 0.01 < float(level.min()) < float(level.max()) < 0.07
