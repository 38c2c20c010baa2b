"""Self-supervised adaptation of networks that enlarge x4, and distillation from a larger one.

The input is the middle of a clip, shrunk by bicubic resizing, or by a random anisotropic Gaussian for each clip. That
blur is estimated from whole frames, since the middle alone is too small for it, or it is given, which bounds the gain
of a better estimate.
"""

import argparse
import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from stvsr.engine.pipeline.flow import picture_flow
from stvsr.training.adapt.blur import random_kernel
from stvsr.training.adapt.blur_estimation import estimate_kernel
from stvsr.training.adapt.distillation import Distillation
from stvsr.training.adapt.protocol import Budget, Method
from stvsr.training.adapt.pseudo import Degrade, bicubic, blurring
from stvsr.training.adapt.restore import restored_frames, restorer
from stvsr.training.adapt.selfsupervised import SelfSupervised
from stvsr.training.checkpoints import random_weights
from stvsr.training.clips import find_clips
from stvsr.training.networks.base import Network
from stvsr.training.networks.registry import find_network

from .trials import (
    FACTOR,
    WHOLE,
    Figures,
    Lines,
    Trained,
    degraded,
    kernel_figures,
    load_trained,
    middle_crop,
    scores,
    to_pictures,
)

CASES = ("bicubic", "estimated", "given")  # bicubic resizing; an unknown blur; a known blur
LEARNERS = ("student", "distilled", "teacher")


def self_supervised(lines: Lines, options: argparse.Namespace) -> None:
    """Measure a line for each network, clip and case."""
    for name in options.networks:
        path = options.runs / name / "weights.pt"
        if (trained := load_trained(name, path)) is None:
            lines.record_missing("self-supervised", name, path)
            continue
        for number, clip in enumerate(find_clips(options.val)[: options.clips]):
            for case in options.cases:
                trial = {**_settings(name, trained, clip, options), "case": case}
                if case == "estimated":
                    trial["estimated_from"] = "whole frames"
                lines.measure_once(
                    "self-supervised", trial, partial(_measure_case, case, trained, clip, number, options)
                )


def distilled(lines: Lines, options: argparse.Namespace) -> None:
    """Measure three lines for each clip.

    The student adapts to its own results, the student adapts to its teacher's, and the teacher adapts to its own.
    """
    networks = {}
    for name in (options.student, options.teacher):
        path = options.runs / name / "weights.pt"
        if (trained := load_trained(name, path)) is None:
            lines.record_missing("distilled", name, path)
            continue
        networks[name] = trained
    if len(networks) < 2:
        return
    student, teacher = networks[options.student], networks[options.teacher]
    for clip in find_clips(options.val)[: options.clips]:
        for learner in LEARNERS:
            trial = _settings(options.student, student, clip, options)
            trial |= {"teacher": options.teacher, "teacher_weights": teacher.sha256, "learner": learner}
            lines.measure_once("distilled", trial, partial(_measure_learner, learner, student, teacher, clip, options))


def distilled_time(lines: Lines, options: argparse.Namespace) -> None:
    """Measure a line for each clip: the time with a teacher of full size, whose weights need not be trained."""
    for clip in find_clips(options.val)[: options.clips]:
        trial = {"network": options.student, "teacher": options.large, **_common_settings(clip, options)}
        lines.measure_once("distilled-time", trial, partial(_both_seconds, clip, options))


def _common_settings(clip: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a trial beside its networks."""
    names = ("frames", "size", "steps", "rate", "batch", "patch", "seed")
    return {"clip": clip.stem, **{n: vars(options)[n] for n in names}}


def _settings(name: str, trained: Trained, clip: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a trial of a trained network."""
    return {"network": name, "weights": trained.sha256, **_common_settings(clip, options)}


def _measure_case(case: str, trained: Trained, clip: Path, number: int, options: argparse.Namespace) -> Figures:
    degrade: Degrade = bicubic
    assumed: Degrade = bicubic
    figures = {}
    if case != "bicubic":
        kernel = random_kernel(np.random.default_rng((options.seed, number)))
        degrade = assumed = blurring(kernel)
        figures = kernel_figures("true", kernel)
        if case == "estimated":
            whole = middle_crop(clip, options.cache, options.frames, WHOLE)
            kernel = estimate_kernel(degraded(whole, degrade), FACTOR)
            assumed = blurring(kernel)
            figures |= kernel_figures("estimated", kernel)
    method = SelfSupervised(**_method_options(options), degrade=assumed, flow=picture_flow)
    return figures | _adapted(method, trained, clip, degrade, options)


def _measure_learner(
    learner: str, student: Trained, teacher: Trained, clip: Path, options: argparse.Namespace
) -> Figures:
    method = _method(teacher.network if learner == "distilled" else None, options)
    return _adapted(method, teacher if learner == "teacher" else student, clip, bicubic, options)


def _both_seconds(clip: Path, options: argparse.Namespace) -> Figures:
    """Return the seconds of the student's adaptation to its teacher's frames, and of the teacher's to its own."""
    student, teacher = (random_weights(find_network(name))[0].eval() for name in (options.student, options.large))
    small = degraded(middle_crop(clip, options.cache, options.frames, options.size), bicubic)
    figures: Figures = {}
    for learner, method, network in (
        ("distilled", _method(teacher, options), student),
        ("teacher", _method(None, options), teacher),
    ):
        run = method.adapt(network, small, Budget(steps=options.steps), options.seed).record
        figures |= {
            f"{learner}_seconds": round(run.seconds, 2),
            f"{learner}_restoring_seconds": run.details["restoring_seconds"],
        }
    return figures


def _method(teacher: Network | None, options: argparse.Namespace) -> Method:
    """Return the adaptation to a teacher's frames or, without a teacher, to the network's own."""
    fields = {**_method_options(options), "flow": picture_flow}
    if teacher is None:
        return SelfSupervised(**fields)
    return Distillation(**fields, restore=restorer(teacher, picture_flow))


def _method_options(options: argparse.Namespace) -> dict[str, Any]:
    return {"rate": options.rate, "batch": options.batch, "patch": options.patch}


def _adapted(method: Method, trained: Trained, clip: Path, degrade: Degrade, options: argparse.Namespace) -> Figures:
    """Return the scores on all frames before and after adaptation to all of them."""
    true = middle_crop(clip, options.cache, options.frames, options.size)
    small = degraded(true, degrade)

    def scores_of(network: Any) -> Figures:
        return scores(to_pictures(restored_frames(network, small, range(len(small)), picture_flow)), true)

    before = scores_of(trained.network)
    adapted = method.adapt(trained.network, small, Budget(steps=options.steps), options.seed)
    learned = copy.deepcopy(trained.network)
    learned.load_state_dict(adapted.weights)
    after, run = scores_of(learned), adapted.record
    return {
        "before": before,
        "after": after,
        "gain_db": round(after["psnr_y_db"] - before["psnr_y_db"], 4),
        "seconds": round(run.seconds, 2),
        "restoring_seconds": run.details["restoring_seconds"],
        "first_loss": run.losses[0],
        "last_loss": run.losses[-1],
        "trained": trained.training,
    }
