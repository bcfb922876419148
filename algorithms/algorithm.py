"""The methods of METHODS with the interface of DomainBed's algorithms.

They import nothing of DomainBed: constructor, `update`, `predict` and plain state are all that
its scripts ask for.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from core_tuning.errors import UserError
from core_tuning.methods import METHODS, Method
from core_tuning.objectives import LossTerms

from .featurizer import PretrainedFeaturizer
from .hyperparameters import check_hparams, complete_hparams, method_of, require_checkpoint

Minibatches = Sequence[tuple[Tensor, Tensor]]


class FineTuning(nn.Module):
    """Fine-tunes a pre-trained encoder and a linear classifier on all source domains together.

    Args:
        input_shape: (3, h, w) of the images.
        num_classes: K.
        num_domains: number of source domains; nothing depends on it.
        hparams: as in `hyperparameters`; what is missing has its default.

    Raises:
        UserError: there is no checkpoint, it does not fit, or a hyper-parameter is unknown or out
            of its range.
    """

    # Keys of what `update` returns.
    reported: tuple[str, ...] = ("loss", "cross_entropy", "contrastive")
    steps_taken: Tensor

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        num_domains: int,
        hparams: Mapping[str, Any],
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_hparams(name, hparams)
        self.hparams = complete_hparams(name, hparams)
        _check_start(name, input_shape, self.hparams["checkpoint"])
        self.featurizer = PretrainedFeaturizer(
            self.hparams["encoder"],
            self.hparams["checkpoint"],
            dropout=self.hparams["resnet_dropout"],
            freeze_bn=self.hparams["freeze_bn"],
            image_size=(input_shape[1], input_shape[2]),
        )
        for stated in (self.hparams, hparams):
            self.featurizer.state_heads(stated)
        self.classifier = nn.Linear(self.featurizer.n_outputs, num_classes, bias=False)
        method = method_of(name)
        self.objective = method.build(
            self.featurizer.n_outputs,
            num_classes,
            {each: self.hparams[each] for each in method.defaults()},
        )
        self.optimizer = torch.optim.Adam(
            self.parameters(),
            lr=self.hparams["lr"],
            weight_decay=self.hparams["weight_decay"],
            fused=True,
        )
        self.register_buffer("steps_taken", torch.zeros((), dtype=torch.int64))
        self.set_steps(0)
        self._warned = False
        self.register_load_state_dict_post_hook(_count_steps)
        self.train()

    def update(
        self, minibatches: Minibatches, unlabeled: Sequence[Tensor] | None = None
    ) -> dict[str, float]:
        """Take a step on one minibatch (images (b, 3, h, w), labels (b,)) a source domain.

        Args:
            minibatches: on the algorithm's device, normalised as DomainBed does.
            unlabeled: images of the target domain, for domain adaptation; not used.

        Returns:
            The loss terms of the step: `loss`, and `cross_entropy` and `contrastive` where the
            objective has both.
        """
        images = torch.cat([images for images, _ in minibatches])
        labels = torch.cat([labels for _, labels in minibatches])
        terms = self.objective(self.featurizer(images), labels, self.classifier)
        self._descend(terms)
        values = torch.stack([terms.total, terms.cross_entropy, terms.contrastive]).tolist()
        return dict(zip(self.reported, values[: len(self.reported)], strict=True))

    def _descend(self, terms: LossTerms) -> None:
        if self._steps >= self.hparams["total_steps"] and not self._warned:
            self._warned = True
            self._warn_of_the_end()
        for group in self.optimizer.param_groups:
            group["lr"] = self.hparams["lr"] * self._decay()
        self.optimizer.zero_grad()
        terms.total.backward()
        self.optimizer.step()
        self.steps_taken += 1
        self._steps += 1

    def _warn_of_the_end(self) -> None:
        hparams = self.hparams
        message = (
            f"{type(self).__name__} takes step {self._steps + 1}, but its learning rate falls over "
            f"{hparams['total_steps']} steps and stays at {hparams['lr_decay']:.3g} of lr from "
            "here on: give the number of steps of the whole run as the hyper-parameter total_steps."
        )
        warnings.warn(message, stacklevel=4)
        # Training scripts often switch warnings off.
        print(f"core-tuning: warning: {message}", file=sys.stderr)

    def set_steps(self, steps: int) -> None:
        """Go to another point of the learning rate's schedule."""
        self.steps_taken.fill_(steps)
        # The number is kept beside the buffer too, because reading that would wait.
        self._steps = steps

    def _decay(self) -> float:
        """Fall by a constant factor a step to `lr_decay` at the last of `total_steps`, and stay."""
        last = max(1, self.hparams["total_steps"] - 1)
        return self.hparams["lr_decay"] ** min(1.0, self._steps / last)

    def predict(self, images: Tensor) -> Tensor:
        """Logits (n, K) of images (n, 3, h, w) as DomainBed normalises them."""
        return self.classifier(self.featurizer(images))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, K) of images (n, 3, h, w) in [0, 1]."""
        return self.classifier(self.featurizer.encode(images))


def _count_steps(algorithm: nn.Module, _: Any) -> None:
    assert isinstance(algorithm, FineTuning)
    algorithm.set_steps(int(algorithm.steps_taken))


def _check_start(name: str, input_shape: Sequence[int], checkpoint: str) -> None:
    if input_shape[0] != 3:
        raise UserError(
            f"The images have {input_shape[0]} channels: {name} fine-tunes encoders of RGB "
            "images, so use a data set of three channels."
        )
    require_checkpoint(name, checkpoint)


def _algorithm(method: Method) -> type[FineTuning]:
    terms = FineTuning.reported if "eta" in method.defaults() else FineTuning.reported[:1]
    return type(
        method.domainbed,
        (FineTuning,),
        {
            "__doc__": f"{method.title}, over the samples of all source domains together.",
            "__module__": __name__,
            "reported": terms,
        },
    )


# By their names in DomainBed; they are attributes of this module too.
CLASSES = {method.domainbed: _algorithm(method) for method in METHODS.values()}


def __getattr__(name: str) -> type[FineTuning]:
    if name not in CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return CLASSES[name]
