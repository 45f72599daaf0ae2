"""What a block's error costs: the losses that reconstruction can minimise, as pure functions.

Notation, B samples of a block output flattened to `a` numbers: d = ẑ - z is the quantized block's deviation, (B, a);
g is the gradient of KL(p_fp || p_q) with respect to ẑ, (B, a); p_fp and p_q are the class probabilities of the
full-precision and the current model. To second order the true cost is ½ dᵀ F d with the Fisher information matrix F,
and near the full-precision optimum g = F d, so that pairs (d, g) are measurements of F.

Every function returns a scalar. All are differentiable in d only.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mse(d: Tensor) -> Tensor:
    """Plain block reconstruction: F taken as the identity."""
    return d.square().sum(1).mean()


def brecq(d: Tensor, g: Tensor) -> Tensor:
    """F taken as diag(g²), sample by sample (BRECQ, Li et al., ICLR 2021). g: (B, a)."""
    return (d.square() * g.square()).sum(1).mean()


def diagonal(d: Tensor, mean_abs_g: Tensor) -> Tensor:
    """FIMA-Q's diagonal part: mean(d² · ḡ) with ḡ the batch mean of |g| (CVPR 2025). mean_abs_g: (a,)."""
    return (d.square() * mean_abs_g).sum(1).mean()


def low_rank(d: Tensor, factor: Tensor) -> Tensor:
    """FIMA-Q's low-rank part: mean(A (D Dᵀ)⁻¹ Aᵀ) with A = |d| Gᵀ (CVPR 2025).

    factor: (a, k), from `low_rank_factor`, which takes everything that does not depend on d.
    """
    return (d.abs() @ factor).square().sum(1).mean()


def low_rank_factor(gradients: Tensor, deviations: Tensor) -> Tensor:
    """Gᵀ R with R Rᵀ = (D Dᵀ)⁻¹, (a, k).

    gradients, deviations: G and D, (k, a), rows of batch means of |g| and |d|. Rows that repeat each other make D Dᵀ
    singular, so directions below 1e-5 of the strongest are left out, as in a pseudo-inverse.
    """
    with torch.autocast(deviations.device.type, enabled=False):  # no GPU decomposes bfloat16
        dtype = torch.promote_types(torch.promote_types(gradients.dtype, deviations.dtype), torch.float32)
        gradients, deviations = gradients.to(dtype), deviations.to(dtype)
        values, vectors = torch.linalg.eigh(deviations @ deviations.t())
        kept = values > 1e-5 * values[-1]
        return gradients.t() @ (vectors * torch.where(kept, values, torch.inf).rsqrt())


def least_squares(d: Tensor, curvature: Tensor, direction: Tensor) -> Tensor:
    """A signed diagonal plus a rank-one part (LS-ViT): Σ h d² + (u·d)². curvature h, direction u: (a,)."""
    return ((d.square() @ curvature) + (d @ direction).square()).mean()


class LeastSquaresFit:
    """Fits g = F d over samples that come in batches: h_i = Σ g_i d_i / Σ d_i² and u = Σ g √(dᵀg) / Σ dᵀg (LS-ViT).

    Negative curvatures are dropped, and samples whose dᵀg is negative (the gradient points away from F d) do not vote
    on u. sums: Σ g d, Σ d², Σ g √(dᵀg) and Σ dᵀg so far.
    """

    def __init__(self) -> None:
        self.sums: list[Tensor] = []

    def add(self, d: Tensor, g: Tensor) -> None:
        """Take in one batch; both (B, a)."""
        along = (d * g).sum(1).clamp(min=0)
        new = (g * d).sum(0), d.square().sum(0), (g * along.sqrt()[:, None]).sum(0), along.sum()
        self.sums = [one + total for one, total in zip(new, self.sums, strict=True)] if self.sums else list(new)

    def estimate(self) -> tuple[Tensor, Tensor]:
        """The curvature h and the direction u, both (a,)."""
        products, squares, weighted, along = self.sums
        return (products / squares.clamp(min=1e-20)).clamp(min=0), weighted / along.clamp(min=1e-20)


def kl_divergence(logits: Tensor, reference: Tensor, temperature: float) -> Tensor:
    """Mean over samples of KL(softmax(reference / T) || softmax(logits / T)). Both (B, classes)."""
    log_q = (logits / temperature).log_softmax(1)
    log_p = (reference / temperature).log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


def softmax_fisher(d: Tensor, logits: Tensor) -> Tensor:
    """½ dᵀ(diag(p) - ppᵀ)d, p = softmax(logits): KL of a deviation of the logits to second order. Both (B, classes)."""
    p = logits.softmax(1)
    return ((p * d.square()).sum(1) - (p * d).sum(1).square()).mean() / 2
