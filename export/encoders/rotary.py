"""Rotary positions of the encoders that Transformers lacks.

Pairs of a head's numbers are turned by angles that grow with the token's position. Knows nothing
about models.

Sources: RoFormer, arXiv 2104.09864; NTK-aware scaling in the form of kexue.fm/archives/9706;
dynamic NTK as Transformers' `_compute_dynamic_ntk_parameters` has it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Stretch:
    """Dynamic NTK: the base grows with a text's length, from the longest that was trained on."""

    factor: float
    trained: int


@dataclass(frozen=True)
class Rotation:
    """How a model's heads are turned."""

    dims: int
    """Of a head's numbers, so many are turned: its first. Even."""
    base: float
    interleaved: bool = False
    """Pairs are neighbours; otherwise number i of the first half and of the second."""
    scale: float = 1.0
    """NTK: the factor by which positions were spread for whatever length."""
    stretch: Stretch | None = None

    def frequencies(self, lengths: Tensor) -> Tensor:
        """Radians per position of each pair: [B, dims / 2] if they depend on the text, or [1, …].

        Args:
            lengths: [B], each row's real tokens. Not the batch's longest, whose neighbours would
                change its vectors.
        """
        exponents = torch.arange(0, self.dims, 2).float()[None] / self.dims
        if self.stretch is None:
            even: Tensor = 1 / (self.base * self.scale) ** exponents
            spread: float = self.scale ** (2 / self.dims)
            return even / spread
        longer = self.stretch.factor * (lengths.float() / self.stretch.trained - 1) + 1
        bases = self.base * longer.clamp(min=1) ** (self.dims / (self.dims - 2))
        longer_turns: Tensor = 1 / bases[:, None] ** exponents
        return longer_turns

    def angles(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, [B or 1, S, 1, dims / 2], of a mask [B, S] of real tokens."""
        steps = torch.arange(mask.shape[1]).float()
        turned = steps[None, :, None] * self.frequencies(mask.sum(1))[:, None, :]
        return turned.cos()[:, :, None], turned.sin()[:, :, None]

    def turn(self, heads: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        """Turn heads [B, S, heads, head_dim] by their positions' angles."""
        cos, sin = angles
        part, rest = heads[..., : self.dims], heads[..., self.dims :]
        if self.interleaved:
            first, second = part[..., 0::2], part[..., 1::2]
        else:
            first, second = part[..., : self.dims // 2], part[..., self.dims // 2 :]
        pair = first * cos - second * sin, second * cos + first * sin
        turned = torch.stack(pair, -1).flatten(-2) if self.interleaved else torch.cat(pair, -1)
        return torch.cat([turned, rest], -1) if rest.shape[-1] else turned
