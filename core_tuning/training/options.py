"""Command-line options that the fine-tuning commands share, without importing torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from core_tuning.checks import check_choice, check_options
from core_tuning.errors import UserError
from core_tuning.options import Parser
from core_tuning.presets import preset

# Each method, and how tables and figures call it.
METHODS = {"ce": "CE", "ce_con": "CE-Con", "core_tuning": "Core-tuning"}
# Options that a preset gives a value to when the command line does not.
PRESET_OPTIONS = tuple(preset("emoji_domains"))
# Options that are numbers.
RANGED = (
    "image_size", "fraction", "validation", "eta", "alpha", "temperature", "lambda_n", "lambda_p",
    "projection_dim", "projection_depth", "epochs", "batch_size", "accumulate", "lr", "momentum",
    "weight_decay", "ema", "limit_steps", "workers", "eval_every", "checkpoint_minutes",
    "seeds",
)  # fmt: skip
# Options that change nothing in the finished weights, and may differ on --resume.
HARMLESS = frozenset(
    ("workers", "checkpoint_minutes", "tensorboard", "data_dir", "download", "scan",
     "allow_large_eps")
)  # fmt: skip


def add_shared_options(parser: Parser) -> None:
    """Add the options that every fine-tuning command has, and `complete` checks."""
    _add_data(parser)
    _add_model(parser)
    _add_method(parser)
    _add_optimisation(parser)
    _add_machine(parser)
    _add_run(parser)


# One option a line or two reads better than the formatter's one argument a line.
# fmt: off
def _add_data(parser: Parser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", default="emoji_domains", metavar="NAME",
                       help="emoji_domains (embedded, the default), cifar10, cifar100, dtd, "
                       "aircraft, pets, flowers, flowers_kaggle, cars, caltech101, imagenet20, "
                       "inat18, or 'folder' for DIR/{train,val}/CLASS/*, where val is the test "
                       "set, or DIR/{train,val,test}/CLASS/*, where val selects the model; val "
                       "may be called valid, validation or dev, and the others training, testing")
    group.add_argument("--data-dir", type=Path, metavar="DIR", help="where the data set lies")
    group.add_argument("--download", action="store_true",
                       help="fetch it first, where torchvision can")
    group.add_argument("--no-scan", dest="scan", action="store_false",
                       help="do not look at the header of every image of a folder before training")
    group.add_argument("--fraction", type=float, default=1.0, metavar="F",
                       help="train on a stratified share of the training data (Table 5)")
    group.add_argument("--validation", type=float, default=0.1, metavar="F",
                       help="share of the training data that selects the model (default: 0.1; "
                       "0 keeps the last epoch's model; a folder with val and test uses its val)")
    group.add_argument("--transforms", choices=("imagenet", "cifar", "small"),
                       help="default: what the paper uses for the data set")
    group.add_argument("--image-size", type=int, metavar="PX",
                       help="side of the network's input; default: that of the transforms")


def _add_model(parser: Parser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--pretrained", metavar="FILE",
                       help="self-supervised checkpoint of any known format ('core-tuning inspect "
                       "FILE' recognises it), 'embedded' for the shipped one (the default of "
                       "emoji_domains; others need one), or 'random'")
    group.add_argument("--encoder", metavar="NAME",
                       help="a torchvision ResNet or ResNeXt, timm:NAME (timm:NAME,num_heads=N for "
                       "other attention heads than the checkpoint's format or timm has), "
                       "small_resnet or small_resnet_2x; default: resnet50, or small_resnet with "
                       "the embedded checkpoint")
    group.add_argument("--normalisation", choices=("checkpoint", "imagenet", "none"),
                       default="checkpoint",
                       help="of the input; default: that of the checkpoint's format")


def _add_method(parser: Parser) -> None:
    group = parser.add_argument_group("method")
    group.add_argument("--method", choices=METHODS, default="core_tuning",
                       help="default: core_tuning")
    group.add_argument("--variant", choices=("equations", "released"), default="equations",
                       help="the paper's equations, or what its released code computes")
    group.add_argument("--eta", type=float, help="weight of the contrastive loss; try 0.1, 1, 10")
    group.add_argument("--alpha", type=float, help="of Beta(alpha, alpha); try 0.1, 1, 10")
    group.add_argument("--temperature", type=float, help="of the contrastive loss")
    group.add_argument("--lambda-n", type=float, help="lower clip for hard negatives (Table 22)")
    group.add_argument("--lambda-p", type=float, default=0.0,
                       help="lower clip for hard positives (Table 22; default: 0)")
    group.add_argument("--no-focal", dest="focal", action="store_false",
                       help="weigh all pairs alike (Table 2)")
    group.add_argument("--mixing", choices=("hard", "manifold", "none"),
                       help="hardness-directed mixup (Core-tuning's default), manifold mixup for "
                       "the classifier alone, or none, the default of CE and CE-Con (Table 2)")
    group.add_argument("--positives", choices=("all", "generated"), default="all",
                       help="which positives are contrasted (Table 23)")
    group.add_argument("--no-smooth-classifier", dest="smooth_classifier", action="store_false",
                       help="do not train the classifier on mixtures (Table 24)")
    group.add_argument("--projection-dim", type=int, help="of the contrastive features")
    group.add_argument("--projection-depth", type=int, help="layers of the projection head, 1 to 5")


def _add_optimisation(parser: Parser) -> None:
    group = parser.add_argument_group("optimisation")
    group.add_argument("--epochs", type=int)
    group.add_argument("--batch-size", type=int, help="images an optimiser step")
    group.add_argument("--accumulate", type=int, default=1, metavar="N",
                       help="cut a batch into N micro-batches to save memory; hard pairs are then "
                       "mined within a micro-batch, so prefer a smaller N (default: 1)")
    group.add_argument("--lr", type=float, help="first learning rate; try 0.01 and 0.1 with SGD")
    group.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd")
    group.add_argument("--momentum", type=float)
    group.add_argument("--nesterov", action=argparse.BooleanOptionalAction)
    group.add_argument("--weight-decay", type=float)
    group.add_argument("--schedule", choices=("cosine", "linear", "constant", "exponential"))
    group.add_argument("--ema", type=float, default=0.0, metavar="DECAY",
                       help="evaluate and keep a moving average of the weights and batch-norm "
                       "statistics, such as 0.995; after t steps its decay is at most "
                       "(1 + t)/(10 + t); it should span a few epochs at most (default: 0, no "
                       "average)")
    group.add_argument("--limit-steps", type=int, metavar="N",
                       help="stop after N steps, to try out a command")


def _add_machine(parser: Parser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32",
                       help="of the forward pass; losses and evaluation stay float32 "
                       "(default: fp32)")
    group.add_argument("--channels-last", action=argparse.BooleanOptionalAction, default=True)
    group.add_argument("--compile", action="store_true", help="pass the encoder to torch.compile")
    group.add_argument(
        "--workers", type=int, default=2, help="image loading processes (default: 2)"
    )


def _add_run(parser: Parser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument("--seeds", type=int, nargs="*", default=[0], metavar="S",
                       help="one run each; reports mean and standard error (default: 0)")
    group.add_argument("--output", type=Path, metavar="DIR",
                       help="run folder; default: runs/DATASET-METHOD, with -released for that "
                       "variant (robust train: runs/DATASET-at_METHOD-NORM-EPS)")
    group.add_argument("--resume", action="store_true", help="go on with a stopped run")
    group.add_argument("--overwrite", action="store_true", help="delete an older run there first")
    group.add_argument("--eval-every", type=int, default=1, metavar="N",
                       help="epochs between evaluations on the validation split (default: 1)")
    group.add_argument("--checkpoint-minutes", type=float, default=10.0, metavar="M",
                       help="save at least so often (0: after every step; default: 10); every "
                       "epoch is saved anyway")
    group.add_argument("--tensorboard", action="store_true", help="write event files too")


# fmt: on
def complete(options: argparse.Namespace) -> None:
    """Fill in what the command line left out from the data set's preset, and check the shared
    options.

    Raises:
        UserError: an option is out of range.
    """
    for name, value in preset(options.dataset).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.mixing is None:
        options.mixing = "hard" if options.method == "core_tuning" else "none"
    _check(options)


def _check(options: argparse.Namespace) -> None:
    check_options(options, RANGED)
    if options.batch_size % options.accumulate:
        raise UserError(
            f"--accumulate is {options.accumulate}, which does not divide the batch size "
            f"{options.batch_size}: choose a divisor."
        )
    if options.method == "ce":
        check_choice("mixing", options.mixing, ("manifold", "none"))
    if options.method == "ce_con":
        check_choice("mixing", options.mixing, ("none",))
    if options.variant == "released" and options.method != "core_tuning":
        raise UserError(
            f"--variant is 'released' with --method {options.method}: the release has a variant "
            "of core_tuning alone."
        )
    if not options.seeds:
        raise UserError("--seeds is empty: give at least one number, such as --seeds 0 1 2.")
    if len(set(options.seeds)) < len(options.seeds):
        raise UserError(f"--seeds is {options.seeds}: expected different numbers.")
    if options.resume and options.overwrite:
        raise UserError("--resume and --overwrite exclude each other: give one of them.")
