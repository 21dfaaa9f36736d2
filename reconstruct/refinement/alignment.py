"""Affine Lucas-Kanade alignment of many patch pairs at once, inverse compositional.

A patch of the *template* image is held fixed and one of the *source* image is warped onto it:
template(u) = gain * source(center + A u) + bias for offsets u (pixels, x then y) of a Gaussian
window. Inverse compositional (Baker and Matthews, "Lucas-Kanade 20 Years On", IJCV 2004): the
gradients are those of the template, so one 6 x 6 system per patch serves all steps. Gain and bias
are projected out of it (section 3.2 of part 2 of that paper), which leaves both patches free in
brightness and contrast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from reconstruct.lazy import lazily
from reconstruct.refinement.patches import inside, sample, window

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazily("torch")

MIN_CONTRAST: Final = 0.1
"""A patch with a smaller standard deviation (of contrast-normalised grey values) is too flat to
align."""
AFFINE_PRIOR: Final = 0.1
"""Damping of the affine part of a step, per squared radius: weak texture must not shear a patch."""
CONVERGED_PX: Final = 0.005
"""A step below this ends the alignment of a patch."""
MIN_COVERED: Final = 0.7
"""Share of the window's weight that must lie inside of both images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warp:
    """M affine warps: template(u) ~ source(center + affinity u).

    Attributes:
        center: (M, 2) COLMAP pixels of the source level.
        affinity: (M, 2, 2) source from template.
    """

    center: Tensor
    affinity: Tensor

    def positions(self, offsets: Tensor) -> Tensor:
        """Source pixels (M, P, 2) of (P, 2) template offsets."""
        return self.center[:, None] + offsets @ self.affinity.transpose(1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The warps after alignment, and how reliable they are.

    Attributes:
        warp: The aligned warps.
        correlation: (M,) weighted correlation, -1 to 1; -1 where a patch is flat or leaves an
            image.
        covariance: (M, 2, 2) of the centre in source pixels squared, due to image noise alone.
    """

    warp: Warp
    correlation: Tensor
    covariance: Tensor


def align(
    template: Tensor,
    positions: Tensor,
    source: Tensor,
    warp: Warp,
    *,
    radius: int,
    iterations: int,
) -> Fit:
    """Refine warps so that the source patches look like the template patches.

    A patch is finished when its step is below `CONVERGED_PX`; of all its warps the one with the
    best correlation is returned.

    Args:
        template: (1, H, W) float32 image.
        positions: (M, 2) centres of the patches, COLMAP pixels of ``template``.
        source: (1, H, W) float32 image.
        warp: The M warps to start from.
        radius: Of the square window, in pixels.
        iterations: Largest number of steps.
    """
    system = _System.build(template, positions, source, warp, radius)
    center, affinity = warp.center.clone(), warp.affinity.clone()
    best = torch.full_like(positions[:, 0], -torch.inf)
    moving, now, live = system, warp, torch.arange(len(positions), device=positions.device)
    for left in range(iterations, -1, -1):
        correlation, step = moving.compare(source, now)
        wins = correlation > best[live]
        winners = live[wins]
        best[winners] = correlation[wins]
        center[winners], affinity[winners] = now.center[wins], now.affinity[wins]
        active = step[:, :2].abs().amax(1) > CONVERGED_PX
        if not left or not active.any():
            break
        now = _compose(now, step)
        if active.float().mean() < 0.75:  # copying the system costs about one step
            moving, live = moving.select(active), live[active]
            now = Warp(center=now.center[active], affinity=now.affinity[active])
    return system.judge(Warp(center=center, affinity=affinity), best)


@dataclass(frozen=True, slots=True, kw_only=True)
class _System:
    """The part of the linear systems that is the same in every step: it depends on the template
    only.

    The steepest descent images are orthogonal to a constant and to the template. Brightness and
    contrast of the source patch p therefore do not change their products with it, except for the
    division by its deviation, and one product of ``projections`` with p gives the whole step.

    Attributes:
        projections: (M, 8, P): six for the step, one for the mean of p, one for its product with
            the template.
        weights: (M, P), sum 1.
        inverse: (M, 6, 6) inverse of the Hessian.
        usable: (M,) bool.
    """

    offsets: Tensor
    weights: Tensor
    projections: Tensor
    inverse: Tensor
    usable: Tensor

    @classmethod
    def build(
        cls, template: Tensor, positions: Tensor, source: Tensor, warp: Warp, radius: int
    ) -> _System:
        """The systems of M patches, from the arguments of `align`."""
        offsets, gauss = window(radius, template.device)
        at = positions[:, None] + offsets
        weights = gauss * (inside(template, at) & inside(source, warp.positions(offsets)))
        covered = weights.sum(-1) / gauss.sum()
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-6)
        values, contrast = _normalise(sample(template, at), weights)
        x, y = (_difference(template, at, axis) / contrast for axis in (0, 1))
        descent = _project_out(_descent(x, y, offsets), values, weights)
        weighted = descent * weights[:, None]
        hessian = weighted @ descent.transpose(1, 2)
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        diagonal[:, 2:] += AFFINE_PRIOR * radius**2
        diagonal += 1e-4 * diagonal + 1e-9  # keeps flat patches solvable
        inverse, _ = torch.linalg.inv_ex(hessian)
        projections = torch.cat(
            [inverse @ weighted, weights[:, None], (weights * values)[:, None]], dim=1
        )
        usable = (covered > MIN_COVERED) & (contrast[:, 0] > MIN_CONTRAST)
        return cls(
            offsets=offsets,
            weights=weights,
            projections=projections,
            inverse=inverse,
            usable=usable,
        )

    def select(self, index: Tensor) -> _System:
        """The patches at ``index``."""
        return _System(
            offsets=self.offsets,
            weights=self.weights[index],
            projections=self.projections[index],
            inverse=self.inverse[index],
            usable=self.usable[index],
        )

    def compare(self, source: Tensor, warp: Warp) -> tuple[Tensor, Tensor]:
        """(M,) correlation with the source patches, and the (M, 6) step (shift x, y and affine xx,
        xy, yx, yy of the template) that explains the difference."""
        patch = sample(source, warp.positions(self.offsets))
        products = (self.projections @ patch[..., None])[..., 0]
        power = (self.weights[:, None] @ patch.square()[..., None])[..., 0, 0]
        deviation = (power - products[:, 6].square()).clamp(min=1e-6).sqrt()
        step = products[:, :6] / deviation[:, None]
        step = torch.where(self.usable[:, None], step.nan_to_num(0.0), 0.0)
        return products[:, 7] / deviation, step

    def judge(self, warp: Warp, correlation: Tensor) -> Fit:
        """The fit: its covariance follows from the noise, which is estimated from the remaining
        difference."""
        # Both patches have unit deviation: |a - b|^2 = 2 - 2 correlation.
        power = 2.0 - 2.0 * correlation.clamp(-1.0, 1.0)
        pixels = 1.0 / self.weights.square().sum(-1).clamp(min=1e-9)
        shift = self.inverse[:, :2, :2] * (power / pixels)[:, None, None]
        return Fit(
            warp=warp,
            correlation=torch.where(self.usable, correlation, -1.0),
            covariance=warp.affinity @ shift @ warp.affinity.transpose(1, 2),
        )


def _normalise(patch: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Patches of zero mean and unit deviation under the weights, (M, P), and the deviations, (M,
    1)."""
    centred = patch - (patch * weights).sum(-1, keepdim=True)
    deviation = (centred.square() * weights).sum(-1, keepdim=True).sqrt().clamp(min=1e-3)
    return centred / deviation, deviation


def _difference(image: Tensor, at: Tensor, axis: int) -> Tensor:
    """(M, P) central difference over one pixel."""
    step = torch.zeros(2, device=at.device)
    step[axis] = 0.5
    return sample(image, at + step) - sample(image, at - step)


def _descent(x: Tensor, y: Tensor, offsets: Tensor) -> Tensor:
    """(M, P) gradients along x and y -> (M, 6, P) derivatives by shift and by affine part."""
    u, v = offsets.unbind(-1)
    return torch.stack([x, y, x * u, x * v, y * u, y * v], dim=1)


def _project_out(descent: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """``descent`` without its components along a constant and along the template."""
    descent = descent - descent @ weights[..., None]
    return descent - (descent @ (weights * values)[..., None]) * values[:, None]


def _compose(warp: Warp, step: Tensor) -> Warp:
    """warp after the inverse of u -> u + shift + affine u."""
    shift, affine = step[:, :2].clamp(-2.0, 2.0), step[:, 2:].reshape(-1, 2, 2).clamp(-0.3, 0.3)
    eye = torch.eye(2, device=step.device)
    inverse, _ = torch.linalg.inv_ex(eye + affine)
    affinity = warp.affinity @ inverse
    center = warp.center - (affinity @ shift[..., None])[..., 0]
    return Warp(center=center, affinity=affinity)
