"""The table of checkpoint formats: where each method's release keeps its encoder."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..encoders import NO_NORMALISATION, Normalisation

IMAGENET = Normalisation()
# Parts of names by which a network was wrapped: by DistributedDataParallel, torch.compile and FSDP.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module")
SUPERVISED_TIMM = "supervised (timm)"

VISSL_TRUNK = "classy_state_dict.base_model.model.trunk"
FC = r"^(module\.)?fc\.weight$"
HEAD = r"^(module\.)?(head(?!\.norm\.)\w*|classifier)\.(.*\.)?weight$"
STEM = r"^(module\.)?conv1\.weight$"
CLS_TOKEN = r"^(module\.)?cls_token$"
SWAV = r"^(module\.)?(prototypes|projection_head)\."
# As its vits.py builds them; timm's vit_small has 6, and the shapes of both are the same.
MOCO_V3_HEADS = ((384, 12), (768, 12), (1024, 16), (1280, 16))
DEEPCLUSTER = r"^(module\.)?prototypes\.prototypes\d"

# What follows the encoder, or serves its pre-training only, in the formats whose encoder has no
# prefix of its own. `head.norm` is exempt: timm's ConvNeXt and its kin pool through it.
NOT_ENCODER = re.compile(
    r"(fc|last_linear|classifier|head(?!\.norm\.)\w*|projection_head|projector|prediction_head"
    r"|predictor|prototypes|queue\w*|decoder\w*|mask_token)(\.|$)"
)


class Format(NamedTuple):
    """A row of the table: which names make a file this format, and where its encoder is.

    What wrappers such as DistributedDataParallel put into names (`WRAPPERS`) does not count in a
    prefix; the patterns see the names as they are.
    """

    name: str
    section: str  # dotted path of the mapping that holds the tensors; "" is the file itself
    prefix: str = ""  # of the encoder's tensors within the section
    has: tuple[str, ...] = ()  # patterns, each of which some tensor's name must match
    lacks: str = ""  # a pattern that no tensor's name may match
    alone: bool = False  # the section is all that the file holds
    normalisation: Normalisation = IMAGENET
    note: str = ""
    arch: str = ""  # a pattern that the file's own "arch" must match
    heads: tuple[tuple[int, int], ...] = ()  # of a ViT by its width, where timm may have others
    # Dotted path of the mapping in which the encoder is that should be preferred to this one's.
    behind: str | None = None


# The first row that fits wins: a row stands before the rows whose files it resembles.
FORMATS = (
    Format("MoCo v3", "state_dict", "base_encoder.", heads=MOCO_V3_HEADS),
    Format(
        "MoCo v3, momentum encoder",
        "state_dict",
        "momentum_encoder.",
        heads=MOCO_V3_HEADS,
        behind="state_dict",
    ),
    Format("MoCo v2", "state_dict", "encoder_q.", (r"encoder_q\.fc\.0\.weight$",)),
    Format("MoCo v1", "state_dict", "encoder_q.", (r"encoder_q\.fc\.weight$",)),
    Format("MoCo v1 or v2 without its head", "state_dict", "encoder_q."),
    Format("PIRL (PyContrast)", "model", "encoder.", (r"^(module\.)?head_jig\.",)),
    Format("InsDis or InfoMin (PyContrast)", "model", "encoder.", (r"^module\.encoder\.",)),
    Format("SupContrast", "model", "encoder."),
    Format("CMC (PyContrast), encoder1", "model", "encoder1."),
    Format("CMC (PyContrast), encoder2", "model", "encoder2.", behind="model"),
    Format("PyContrast, momentum encoder", "model_ema", "encoder.", behind="model"),
    Format("CMC (PyContrast), momentum encoder1", "model_ema", "encoder1.", behind="model"),
    Format("DINO, teacher", "teacher", "backbone."),
    Format("DINO, student", "student", "backbone.", behind="teacher"),
    Format("Barlow Twins", "model", "backbone.", (r"^(module\.)?bn\.running_mean$",)),
    Format("VICReg", "model", "backbone."),
    Format("VISSL", VISSL_TRUNK, "_feature_blocks."),
    Format("VISSL", VISSL_TRUNK),
    Format("DeepCluster-v2", "", "", (DEEPCLUSTER,)),
    Format("DeepCluster-v2", "state_dict", "", (DEEPCLUSTER,)),
    Format("SwAV", "", "", (SWAV,)),
    Format("SwAV", "state_dict", "", (SWAV,)),
    Format("solo-learn or lightly (Lightning)", "state_dict", "backbone."),
    Format(
        "SimCLR v1 (converted)",
        "state_dict",
        "",
        # The converter writes ResNet-50s only, which have bottlenecks.
        (r"^conv1\.weight$", r"^layer1\.0\.conv3\.weight$", r"^fc\.weight$"),
        alone=True,
        normalisation=NO_NORMALISATION,
        note="assumed to be SimCLR v1, whose images are not normalised, because 'state_dict' "
        "without a prefix is all that the file holds; pass --normalisation if it is not",
    ),
    Format("BYOL (converted)", "", "", (STEM, r"bn1\.running_mean$"), rf"num_batches_tracked|{FC}"),
    Format(
        "BYOL (converted) or supervised before PyTorch 0.4.1", "", "", (STEM, FC), "num_batches"
    ),
    Format("supervised (torchvision or timm)", "", "", (FC,)),
    Format(SUPERVISED_TIMM, "", "", (HEAD,)),
    Format("DINO or other ViT without a head", "", "", (CLS_TOKEN,)),
    Format("encoder without a head (Barlow Twins, VICReg, DINO ResNet-50 or other)", ""),
    Format(
        "MoCo v3, linear evaluation",
        "state_dict",
        "",
        (CLS_TOKEN, HEAD),
        # Without a patch size, unlike timm's names.
        arch=r"vit_(small|base|large|huge)$",
        heads=MOCO_V3_HEADS,
    ),
    Format("training checkpoint (PyTorch ImageNet example, timm or MoCo v3 linear)", "state_dict"),
    Format("training checkpoint (DeiT, MAE or other)", "model"),
)
