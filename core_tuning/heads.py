"""The projection head G_c of the contrastive features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import FEATURES, check_tensors
from .checks import check_range
from .precision import at_least_float32, call_in_own_dtype


class ProjectionHead(nn.Module):
    """Maps encoder features z to contrastive features v = G_c(z) / |G_c(z)| (Section 4.1).

    G_c is Linear(d, d)-ReLU, repeated depth - 1 times, then Linear(d, projection_dim), without
    batch norm. The paper uses depth 2 and 256 dimensions; Appendix E.1 varies both.

    Args:
        feature_dim: d, the width of the encoder features.
        projection_dim: width of the contrastive features.
        depth: number of linear layers, 1 to 5.

    Raises:
        UserError: an argument is out of range.
    """

    def __init__(self, feature_dim: int, projection_dim: int = 256, depth: int = 2) -> None:
        super().__init__()
        check_range("feature_dim", feature_dim)
        check_range("projection_dim", projection_dim)
        check_range("projection_depth", depth)
        self.feature_dim = feature_dim
        self.layers = nn.Sequential()
        for _ in range(depth - 1):
            self.layers.append(nn.Linear(feature_dim, feature_dim))
            self.layers.append(nn.ReLU(inplace=True))
        self.layers.append(nn.Linear(feature_dim, projection_dim))

    def forward(self, features: Tensor) -> Tensor:
        """Project features (n, d) to unit vectors (n, projection_dim), float32 or float64.

        Raises:
            UserError: the features are not of shape (n, d), or of no floating dtype.
        """
        check_tensors(features=(features, FEATURES), sizes={"d": self.feature_dim})
        return F.normalize(at_least_float32(call_in_own_dtype(self.layers, features)), dim=1)
