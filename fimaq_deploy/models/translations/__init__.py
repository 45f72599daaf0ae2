"""Names of other packages' weights as timm's names, one file a package.

A scheme is recognised by one name that all its checkpoints hold, behind any prefix. What it does not know is left under
its own name, so that loading names it.
"""

from __future__ import annotations

from fimaq_deploy.models.translations.hugging_face import HUGGING_FACE
from fimaq_deploy.models.translations.scheme import Scheme
from fimaq_deploy.models.translations.torchvision import TORCHVISION_SWIN, TORCHVISION_VIT

SCHEMES: tuple[Scheme, ...] = (HUGGING_FACE, TORCHVISION_VIT, TORCHVISION_SWIN)

__all__ = ["SCHEMES", "Scheme"]
