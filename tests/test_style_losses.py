"""Every style loss against NumPy or a closed form, and what several of them promise together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg, ndimage
from torch import Tensor

from regraft.style.figures.similarity import ssim
from regraft.style.losses import (
    content_loss,
    gram_loss,
    histogram_loss,
    laplacian_loss,
    matrix_root,
    mix,
    moments,
    sorted_channels,
    total_variation,
    wasserstein_loss,
)
from regraft.style.methods.gatys import BoundedPixels

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape)).double()


def test_moments_are_means_over_positions() -> None:
    features = drawn(0, 4, 5, 6)
    flat = features.numpy().reshape(4, -1)
    found = moments(features)
    np.testing.assert_allclose(found.mean.numpy(), flat.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.second.numpy(), flat @ flat.T / 30, rtol=1e-6)
    np.testing.assert_allclose(found.covariance.numpy(), np.cov(flat, bias=True), atol=1e-6)


def test_weighted_moments_are_those_of_the_region() -> None:
    features, weight = drawn(1, 3, 4, 8), torch.zeros(1, 4, 8)
    weight[:, :, :4] = 1
    inside, whole = moments(features[:, :, :4]), moments(features, weight)
    torch.testing.assert_close(whole.mean, inside.mean)
    torch.testing.assert_close(whole.second, inside.second)


def test_a_mixture_has_the_moments_of_the_samples_together() -> None:
    a, b = drawn(2, 3, 4, 5), 2 * drawn(3, 3, 4, 15)
    together = moments(torch.cat((a, b), dim=2))
    mixed = mix([moments(a), moments(b)], [0.25, 0.75])
    torch.testing.assert_close(mixed.mean, together.mean)
    torch.testing.assert_close(mixed.second, together.second)


def test_gram_loss() -> None:
    a, b = drawn(4, 5, 6, 7), drawn(5, 5, 3, 4)
    g, t = (f.numpy().reshape(5, -1) @ f.numpy().reshape(5, -1).T / f[0].numel() for f in (a, b))
    expected = ((g - t) ** 2).sum() / (t**2).sum()
    assert float(gram_loss(moments(a), moments(b))) == pytest.approx(expected, rel=1e-5)
    assert float(gram_loss(moments(b), moments(b))) == 0


def test_wasserstein_is_the_distance_of_gaussians() -> None:
    a, b = drawn(6, 4, 9, 9), drawn(7, 4, 8, 8) ** 2
    ma, mb = moments(a), moments(b)
    flat_a, flat_b = a.numpy().reshape(4, -1), b.numpy().reshape(4, -1)
    cov_a, cov_b = np.cov(flat_a, bias=True), np.cov(flat_b, bias=True)
    root = linalg.sqrtm(cov_b)
    cross = linalg.sqrtm(root @ cov_a @ root).real
    squared = ((flat_a.mean(1) - flat_b.mean(1)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * cross)
    expected = squared / (flat_b**2).mean(axis=1).sum()
    assert float(wasserstein_loss(ma, mb)) == pytest.approx(expected, rel=2e-3)
    assert float(wasserstein_loss(ma, mb, matrix_root(mb.covariance))) == pytest.approx(expected, rel=2e-3)
    assert abs(float(wasserstein_loss(mb, mb))) < 1e-3


def test_wasserstein_of_shifted_samples_is_the_shift() -> None:
    a = drawn(8, 3, 6, 6)
    shift = torch.tensor([0.3, -0.2, 0.1], dtype=a.dtype).view(3, 1, 1)
    target = moments(a)
    expected = float(shift.square().sum()) / float(target.second.diagonal().sum())
    assert float(wasserstein_loss(moments(a + shift), target)) == pytest.approx(expected, rel=5e-3)


def test_wasserstein_has_a_finite_gradient_where_covariances_are_singular() -> None:
    flat = torch.full((4, 5, 5), 0.5, requires_grad=True)
    wasserstein_loss(moments(flat), moments(drawn(9, 4, 5, 5).float())).backward()
    assert flat.grad is not None and bool(torch.isfinite(flat.grad).all())


def test_matrix_root_squares_to_the_covariance() -> None:
    covariance = moments(drawn(10, 6, 4, 4)).covariance
    root = matrix_root(covariance)
    torch.testing.assert_close(root @ root, covariance, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(root, root.T)


def test_histogram_loss_is_the_distance_to_the_matched_features() -> None:
    a, b = drawn(11, 3, 5, 5), drawn(12, 3, 5, 5) + 1
    flat, style = a.numpy().reshape(3, -1), b.numpy().reshape(3, -1)
    matched = np.empty_like(flat)
    for channel in range(3):  # R(F): the k-th smallest value becomes the style's k-th smallest
        matched[channel, flat[channel].argsort()] = np.sort(style[channel])
    expected = ((flat - matched) ** 2).sum() / (matched**2).sum()
    x = a.clone().requires_grad_(True)
    loss = histogram_loss(x, sorted_channels(b))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    right = 2 * (flat - matched) / (matched**2).sum()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy().reshape(3, -1), right, rtol=1e-4, atol=1e-9)


def test_histogram_loss_takes_styles_of_any_size_and_regions() -> None:
    features = drawn(13, 2, 6, 6)
    enlarged = features.repeat_interleave(3, dim=1)
    assert float(histogram_loss(features, sorted_channels(enlarged))) < 1e-3
    weight = torch.zeros(1, 6, 6)
    weight[:, :3] = 1
    only = histogram_loss(features, sorted_channels(features[:, :3]), weight)
    assert float(only) == pytest.approx(0, abs=1e-12)
    assert float(histogram_loss(features, sorted_channels(features[:, :3]))) > 1e-5


def test_content_loss() -> None:
    a, b = drawn(14, 3, 4, 5), drawn(15, 3, 4, 5)
    weight = drawn(16, 1, 4, 5)
    x, y, w = a.numpy(), b.numpy(), weight.numpy()
    assert float(content_loss(a, b)) == pytest.approx(((x - y) ** 2).sum() / (y**2).sum(), rel=1e-5)
    expected = ((x - y) ** 2 * w).sum() / (y**2 * w).sum()
    assert float(content_loss(a, b, weight)) == pytest.approx(expected, rel=1e-5)


def test_total_variation() -> None:
    picture = drawn(17, 3, 6, 8)
    x = picture.numpy()
    expected = (np.diff(x, axis=1) ** 2).mean() + (np.diff(x, axis=2) ** 2).mean()
    assert float(total_variation(picture)) == pytest.approx(expected)


@pytest.mark.parametrize("pool", [1, 2])
def test_laplacian_loss(pool: int) -> None:
    a, b = drawn(18, 3, 8, 12), drawn(19, 3, 8, 12)

    def filtered(picture: np.ndarray) -> np.ndarray:
        small = picture.reshape(3, 8 // pool, pool, 12 // pool, pool).mean(axis=(2, 4))
        kernel = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
        return ndimage.convolve(small.sum(axis=0), kernel, mode="nearest")

    gap = (filtered(a.numpy()) - filtered(b.numpy())) ** 2
    assert float(laplacian_loss(a, b, (pool,))) == pytest.approx(gap.mean())
    weight = torch.zeros(1, 8, 12, dtype=a.dtype)
    weight[:, :4] = 1
    assert float(laplacian_loss(a, b, (pool,), weight)) == pytest.approx(gap[: 4 // pool].mean())
    assert float(laplacian_loss(a, b, (1, 2))) == pytest.approx(
        float(laplacian_loss(a, b, (1,))) + float(laplacian_loss(a, b, (2,)))
    )


def test_ssim_by_its_formula() -> None:
    a, b = drawn(20, 3, 20, 24), drawn(21, 3, 20, 24)
    a[1], b[1] = a[1] * 0.2 + 0.4, a[1] * 0.3 + 0.3
    maps = []
    for x, y in zip(a.numpy(), b.numpy(), strict=True):

        def blur(values: np.ndarray) -> np.ndarray:
            return ndimage.gaussian_filter(values, 1.5, radius=5, mode="mirror")

        ma, mb = blur(x), blur(y)
        va, vb, c = blur(x * x) - ma**2, blur(y * y) - mb**2, blur(x * y) - ma * mb
        upper = (2 * ma * mb + 0.01**2) * (2 * c + 0.03**2)
        maps.append(upper / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2)))
    assert float(ssim(a, b)) == pytest.approx(np.mean(maps), abs=1e-9)
    assert float(ssim(a, a)) == pytest.approx(1)


def test_bounded_pixels_can_come_back() -> None:
    x = torch.tensor([-0.2, -0.2, 0.5, 1.2, 1.2], requires_grad=True)
    upstream = torch.tensor([1.0, -1.0, 3.0, -1.0, 1.0])  # descent moves against it
    bounded = BoundedPixels.apply(x)
    assert bounded.tolist() == [0, 0, 0.5, 1, 1]
    bounded.backward(upstream)
    assert x.grad is not None and x.grad.tolist() == [0, -1, 3, 0, 1]
