"""Batches of crops from endless scenes, made by processes of their own.

Drawing a scene costs many times what a crop does, so that each worker keeps the latest few hundred scenes and takes
several crops of each. A batch is asked for and given in turn: which batch comes when does not depend on timing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np

from train.augment import IGNORED, Pixels, crop, disturb

#: Scenes to train on have seeds below, scenes to evaluate on have seeds from here on.
HELD_OUT = 1_000_000

Scene: TypeAlias = tuple[Pixels, Pixels]
Render: TypeAlias = Callable[[int, int, tuple[int, int]], Scene]

_FRAMES = 400
#: Of each size that a scene is drawn at, how often: the demo draws the larger one and halves it.
_SIZES = (((1024, 2048), 0.75), ((512, 1024), 0.25))
_PICTURE = 512 * 1024
_PATIENCE_S = 600.0
_AHEAD = 3


@dataclass(frozen=True)
class Plan:
    """What a worker draws from: ``fresh`` is how many new scenes are drawn for a whole picture's worth of crops (512 x
    1024 pixels), ``keep`` how many are kept; ``camvid`` the folder of real frames or "", ``real`` the share of crops
    from it."""

    seed: int
    fresh: float = 0.2
    keep: int = 150
    camvid: str = ""
    real: float = 0.2


@dataclass(frozen=True)
class Wanted:
    """A batch: ``count`` crops of ``size`` (height, width); ``scales`` as in ``augment.crop``, the share
    ``disturbed`` of them disturbed."""

    count: int
    size: tuple[int, int]
    scales: tuple[float, float]
    disturbed: float


def street(seed: int, index: int, size: tuple[int, int]) -> Scene:
    from segcam.sources.street import render

    return render(seed, index, size)


class Kitchen:
    """Scenes and crops of one worker; ``render`` draws scenes."""

    def __init__(self, plan: Plan, worker: int, render: Render = street) -> None:
        self._plan, self._render = plan, render
        self._random = np.random.default_rng([plan.seed, worker])
        self._scenes: list[Scene] = []
        self._real = real_frames(plan.camvid) if plan.camvid else []

    def batch(self, wanted: Wanted) -> tuple[Pixels, Pixels]:
        """(count, H, W, 3) RGB and (count, H, W) labels."""
        crops = [self._crop(wanted) for _ in range(wanted.count)]
        return np.stack([rgb for rgb, _ in crops]), np.stack([labels for _, labels in crops])

    def _crop(self, wanted: Wanted) -> Scene:
        random = self._random
        if self._real and random.random() < self._plan.real:
            rgb, labels = self._real[random.integers(len(self._real))]
        else:
            rgb, labels = self._scene(wanted.size[0] * wanted.size[1] / _PICTURE)
        piece, classes = crop(rgb, labels, wanted.size, wanted.scales, random)
        return (disturb(piece, random) if random.random() < wanted.disturbed else piece), classes

    def _scene(self, share: float) -> Scene:
        random, plan = self._random, self._plan
        # In the beginning more are drawn, or the first crops would all be of the same scene.
        if len(self._scenes) < 4 or random.random() < max(
            plan.fresh * share, 1 - len(self._scenes) / min(32, plan.keep)
        ):
            size = _SIZES[int(random.random() > _SIZES[0][1])][0]
            scene = self._render(int(random.integers(HELD_OUT)), int(random.integers(_FRAMES)), size)
            if len(self._scenes) < plan.keep:
                self._scenes.append(scene)
            else:
                self._scenes[random.integers(plan.keep)] = scene
            return scene
        return self._scenes[random.integers(len(self._scenes))]


#: CamVid's 11 classes as the SegNet tutorial has them, by the class of Cityscapes that each is most like. "Bicyclist"
#: is rider and bicycle in one, "car" also trucks and buses: the former is left out.
_CAMVID = {
    "sky": "sky", "building": "building", "pole": "pole", "road": "road", "pavement": "sidewalk", "tree": "vegetation",
    "sign_symbol": "traffic sign", "fence": "fence", "car": "car", "pedestrian": "person",
}  # fmt: skip


def real_frames(folder: str) -> list[Scene]:
    """The training pictures of CamVid (``train/`` and ``trainannot/``), with Cityscapes' classes."""
    from segcam.classes import CAMVID, CITYSCAPES
    from segcam.evaluation.datasets import make_dataset

    table = np.full(256, IGNORED, np.uint8)
    for name, ours in _CAMVID.items():
        table[CAMVID.index(name)] = CITYSCAPES.index(ours)
    data = make_dataset(f"camvid:{folder}:train")
    samples = [data.read(i) for i in range(len(data))]
    return [(cv2.cvtColor(s.frame.planes[0], cv2.COLOR_BGR2RGB), table[s.labels]) for s in samples]


class Feed:
    """Workers that make batches ahead of their use. ``wanted`` is the batch to ask for next; set it at any time."""

    def __init__(self, plan: Plan, workers: int, wanted: Wanted, render: Render = street) -> None:
        # Spawned, not forked: by then the parent has threads of its own.
        context = multiprocessing.get_context("spawn")
        self.wanted = wanted
        self._asked: list[Any] = [context.Queue() for _ in range(workers)]
        self._made: list[Any] = [context.Queue() for _ in range(workers)]
        self._turn = 0
        self._workers = [
            context.Process(target=_work, args=(plan, number, render, asked, made), daemon=True)
            for number, (asked, made) in enumerate(zip(self._asked, self._made, strict=True))
        ]
        for worker in self._workers:
            worker.start()
        for asked in self._asked:
            for _ in range(_AHEAD):
                asked.put(wanted)

    def next(self) -> tuple[Pixels, Pixels]:
        """The next batch, see Kitchen.batch. Raises RuntimeError when a worker has died."""
        turn = self._turn
        self._turn = (turn + 1) % len(self._workers)
        self._asked[turn].put(self.wanted)
        waited = 0.0
        while True:
            try:
                rgb, labels = self._made[turn].get(timeout=5)
                return rgb, labels
            except queue.Empty:
                waited += 5
                if not self._workers[turn].is_alive() or waited > _PATIENCE_S:
                    raise RuntimeError("a worker that draws scenes has died; its message is above") from None

    def close(self) -> None:
        for worker in self._workers:
            worker.terminate()
            worker.join()


def _work(plan: Plan, number: int, render: Render, asked: Any, made: Any) -> None:
    # Ctrl-C in a terminal reaches all processes; the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    kitchen = Kitchen(plan, number, render)
    parent = multiprocessing.parent_process()
    # A batch that nobody is left to take must not keep this process.
    made.cancel_join_thread()
    while parent is None or parent.is_alive():
        with contextlib.suppress(queue.Empty):
            made.put(kitchen.batch(asked.get(timeout=5)))
