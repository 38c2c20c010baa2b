"""Self-supervised adaptation of networks that enlarge x4, and distillation from a larger one.

Input is the middle of a clip, made small by bicubic resizing, or by an anisotropic Gaussian that is drawn for the clip.
That blur is estimated, from whole frames, since the middle alone tells too little of it; or it is given, which bounds
what a better estimate could gain.
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
from stvsr.training.adapt.restore import restored_frames, restoring
from stvsr.training.adapt.selfsupervised import SelfSupervised
from stvsr.training.checkpoints import random_weights
from stvsr.training.clips import find_clips
from stvsr.training.networks.base import Network
from stvsr.training.networks.registry import find_network

from .trials import FACTOR, WHOLE, Figures, Lines, Trained, middle, pictures_of, scores, shown, told_kernel, trained

CASES = ("bicubic", "estimated", "given")  # made small plainly; by an unknown blur; by a blur that is told
LEARNERS = ("student", "distilled", "teacher")


def self_supervised(lines: Lines, options: argparse.Namespace) -> None:
    """A line for each network, clip and case."""
    for name in options.networks:
        path = options.runs / name / "weights.pt"
        if (found := trained(name, path)) is None:
            lines.missing("self-supervised", name, path)
            continue
        for number, clip in enumerate(find_clips(options.val)[: options.clips]):
            for case in options.cases:
                trial = {**_settings(name, found, clip, options), "case": case}
                if case == "estimated":
                    trial["estimated_from"] = "whole frames"
                lines.once("self-supervised", trial, partial(_case, case, found, clip, number, options))


def distilled(lines: Lines, options: argparse.Namespace) -> None:
    """Three lines for each clip: the student adapted to itself, to its teacher's frames, and the teacher to itself."""
    networks = {}
    for name in (options.student, options.teacher):
        path = options.runs / name / "weights.pt"
        if (found := trained(name, path)) is None:
            lines.missing("distilled", name, path)
            continue
        networks[name] = found
    if len(networks) < 2:
        return
    student, teacher = networks[options.student], networks[options.teacher]
    for clip in find_clips(options.val)[: options.clips]:
        for who in LEARNERS:
            trial = _settings(options.student, student, clip, options)
            trial |= {"teacher": options.teacher, "teacher_weights": teacher.sha256, "learner": who}
            lines.once("distilled", trial, partial(_learner, who, student, teacher, clip, options))


def distilled_time(lines: Lines, options: argparse.Namespace) -> None:
    """A line for each clip: how long it takes with a teacher of its full size, whose weights need not be trained."""
    for clip in find_clips(options.val)[: options.clips]:
        trial = {"network": options.student, "teacher": options.large, **_same(clip, options)}
        lines.once("distilled-time", trial, partial(_both_seconds, clip, options))


def _same(clip: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What must be the same for a line to serve, beside the networks."""
    names = ("frames", "size", "steps", "rate", "batch", "patch", "seed")
    return {"clip": clip.stem, **{n: vars(options)[n] for n in names}}


def _settings(name: str, found: Trained, clip: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What must be the same for a line of a trained network to serve."""
    return {"network": name, "weights": found.sha256, **_same(clip, options)}


def _case(case: str, found: Trained, clip: Path, number: int, options: argparse.Namespace) -> Figures:
    degrade: Degrade = bicubic
    assumed: Degrade = bicubic
    told = {}
    if case != "bicubic":
        kernel = random_kernel(np.random.default_rng((options.seed, number)))
        degrade = assumed = blurring(kernel)
        told = told_kernel("true", kernel)
        if case == "estimated":
            kernel = estimate_kernel(shown(middle(clip, options.cache, options.frames, WHOLE), degrade), FACTOR)
            assumed = blurring(kernel)
            told |= told_kernel("estimated", kernel)
    method = SelfSupervised(**_how(options), degrade=assumed, flow=picture_flow)
    return told | _adapted(method, found, clip, degrade, options)


def _learner(who: str, student: Trained, teacher: Trained, clip: Path, options: argparse.Namespace) -> Figures:
    method = _method(teacher.network if who == "distilled" else None, options)
    return _adapted(method, teacher if who == "teacher" else student, clip, bicubic, options)


def _both_seconds(clip: Path, options: argparse.Namespace) -> Figures:
    """Of the student's adaptation to its teacher's frames, and of the teacher's to itself."""
    student, teacher = (random_weights(find_network(name))[0].eval() for name in (options.student, options.large))
    small = shown(middle(clip, options.cache, options.frames, options.size), bicubic)
    figures = {}
    for who, method, network in (
        ("distilled", _method(teacher, options), student),
        ("teacher", _method(None, options), teacher),
    ):
        run = method.adapt(network, small, Budget(steps=options.steps), options.seed).record
        figures |= {
            f"{who}_seconds": round(run.seconds, 2),
            f"{who}_restoring_seconds": run.details["restoring_seconds"],
        }
    return figures


def _method(teacher: Network | None, options: argparse.Namespace) -> Method:
    """Adaptation to a teacher's frames, or, without one, to a network's own."""
    given = {**_how(options), "flow": picture_flow}
    if teacher is None:
        return SelfSupervised(**given)
    return Distillation(**given, restore=restoring(teacher, picture_flow))


def _how(options: argparse.Namespace) -> dict[str, Any]:
    return {"rate": options.rate, "batch": options.batch, "patch": options.patch}


def _adapted(method: Method, found: Trained, clip: Path, degrade: Degrade, options: argparse.Namespace) -> Figures:
    """Scores on every frame before and after adaptation to all of them."""
    true = middle(clip, options.cache, options.frames, options.size)
    small = shown(true, degrade)

    def judged(network: Any) -> Figures:
        return scores(pictures_of(restored_frames(network, small, range(len(small)), picture_flow)), true)

    before = judged(found.network)
    adapted = method.adapt(found.network, small, Budget(steps=options.steps), options.seed)
    learnt = copy.deepcopy(found.network)
    learnt.load_state_dict(adapted.weights)
    after, run = judged(learnt), adapted.record
    return {
        "before": before,
        "after": after,
        "gain_db": round(after["psnr_y_db"] - before["psnr_y_db"], 4),
        "seconds": round(run.seconds, 2),
        "restoring_seconds": run.details["restoring_seconds"],
        "first_loss": run.losses[0],
        "last_loss": run.losses[-1],
        "trained": found.told,
    }
