"""Earlier translated pictures, so that a discriminator does not forget what it has seen through."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regraft.core.errors import UsageError


class ImagePool(nn.Module):
    """Up to `size` pictures (3, H, W) of [−1, 1], kept between steps.

    Paper: Shrivastava et al., "Learning from Simulated and Unsupervised Images through Adversarial Training", CVPR
    2017, arXiv:1612.07828, section 2.3, in the form of CycleGAN (arXiv:1703.10593, section 4): while there is room a
    picture is kept and given back; then with probability ½ an earlier one, drawn evenly, is given back and the new one
    takes its place, else the new one is given back and not kept.

    What is in it is part of the state dict, in 8 bits, and what is given back is of 8 bits too, as files are. The draws
    are torch's random numbers, which the engine sets from the step: so a resumed training goes on as if it had not
    been stopped. A size of 0 gives every picture back.
    """

    pictures: Tensor
    count: Tensor

    def __init__(self, size: int, side_px: int) -> None:
        super().__init__()
        if not 0 <= size <= 10_000:
            raise UsageError(f"An image pool holds 0 to 10,000 pictures; {size} came.")
        self.size = size
        self.register_buffer("pictures", torch.zeros(size, 3, side_px, side_px, dtype=torch.uint8))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def exchange(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) → as many to judge, on the values that 8 bits have, one after the other."""
        new = as_bytes(pictures)
        if self.size == 0:
            return as_signed(new)
        given = []
        held = int(self.count)
        for picture in new:
            if held < self.size:
                self.pictures[held] = picture
                held += 1
                given.append(picture)
            elif float(torch.rand(())) < 0.5:
                place = int(torch.randint(self.size, ()))
                given.append(self.pictures[place].clone())
                self.pictures[place] = picture
            else:
                given.append(picture)
        self.count.fill_(held)
        return as_signed(torch.stack(given))


def as_bytes(pictures: Tensor) -> Tensor:
    """[−1, 1] → uint8 0…255."""
    return ((pictures.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def as_signed(pictures: Tensor) -> Tensor:
    """uint8 0…255, or float in [0, 1], → float32 in [−1, 1]."""
    if pictures.is_floating_point():
        return pictures.float() * 2 - 1
    return pictures.float() / 127.5 - 1
