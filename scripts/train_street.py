#!/usr/bin/env python3
"""Trains the demo's network, MobileV3Small with 64 filters, from nothing on endless drawn streets.

Needs PyTorch beside Segcam's own environment (pip install torch), which Segcam itself does not use; a C compiler makes
it several times faster on a CPU. Two cores take about an hour, a GPU minutes:

  python scripts/train_street.py --output out/train --minutes 60
  python scripts/train_street.py --output out/train --minutes 90 --resume       # goes on from its last checkpoint
  segcam export demo.onnx --model MobileV3Small --num-filters 64 --size 512,1024 \\
      --checkpoint out/train/demo.pt --fp16
  segcam eval --engine demo.onnx --dataset street:seed=1000000,frames=12

In OUTPUT: log.jsonl (arguments, steps, scores), curve.png, last.pt (to go on from), demo.pt (the averaged weights, in
the form of fastseg's checkpoints). Scenes to train on have seeds below 1,000,000; scores are of seeds from there on.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.feed import Wanted


@dataclass(frozen=True)
class Stage:
    """From ``begin`` (a share of the run) on: batches of ``count`` crops of ``size``, see ``Wanted``; ``whole``: see
    ``loss_of``."""

    begin: float
    count: int
    size: tuple[int, int]
    scales: tuple[float, float]
    disturbed: float
    whole: bool

    def wanted(self, factor: float) -> Wanted:
        from train.feed import Wanted

        return Wanted(max(1, round(self.count * factor)), self.size, self.scales, self.disturbed)


#: Many small crops first: a pixel costs the same in any crop, and many scenes teach more than few. Whole pictures as
#: the demo's network sees them last: the gate of its head and the squeezed averages are over whole pictures there.
STAGES = (
    Stage(0.0, 4, (256, 512), (0.6, 1.8), 0.7, False),
    Stage(0.6, 1, (512, 1024), (0.8, 1.5), 0.5, False),
    Stage(0.85, 2, (512, 1024), (0.8, 1.2), 0.4, True),
)


def main(argv: Sequence[str] | None = None) -> int:
    given = _arguments(argv)
    # Threads that spin while they wait cost most of the time on a machine that does something else, too.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import torch
    except ImportError:
        print("train_street.py needs PyTorch. Type: pip install torch", file=sys.stderr)
        return 1
    _keep_memory()
    if given.threads:
        torch.set_num_threads(given.threads)
    run = Run(given)
    # Also where it was started in the background, by a shell that has Ctrl-C ignored there.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        run.train()
    except KeyboardInterrupt:
        run.save()
        print(f"stopped; go on with: --output {given.output} --minutes {given.minutes:g} --resume", file=sys.stderr)
        return 130
    finally:
        run.close()
    return 0


class Run:
    """One training run and what it keeps in its folder."""

    def __init__(self, given: argparse.Namespace) -> None:
        import torch

        from train.feed import Feed, Plan
        from train.learning import Average, Balance, held_out_scenes, initialise, parameter_groups
        from train.network import MobileV3Small
        from train.progress import ActiveClock, Log

        self.given, self.output = given, Path(given.output)
        self.log = Log(self.output / "log.jsonl")
        self.device = torch.device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.manual_seed(given.seed)
        self.network = MobileV3Small()
        initialise(self.network)
        self.network.to(self.device, memory_format=torch.channels_last)
        self.average, self.balance = Average(self.network), Balance()
        self.optimiser = torch.optim.AdamW(parameter_groups(self.network, given.decay), given.rate)
        half = torch.float16 if self.device.type == "cuda" and not torch.cuda.is_bf16_supported() else torch.bfloat16
        self.half = {"auto": half, "fp32": None}[given.precision]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.half == torch.float16)
        self.step, minutes = 0, 0.0
        if given.resume:
            minutes = self.load()
        self.clock = ActiveClock(minutes)
        plan = Plan(given.seed + self.step, given.fresh, given.keep, given.camvid, given.camvid_share)
        self.feed = Feed(plan, given.workers, self.stage().wanted(given.batch))
        self.log.write(
            "start",
            arguments=vars(given),
            step=self.step,
            minutes=minutes,
            machine={"device": str(self.device), "threads": torch.get_num_threads(), "torch": torch.__version__}
            | {"python": platform.python_version()},
        )
        self.scenes = held_out_scenes(given.scenes)

    @property
    def progress(self) -> float:
        """0..1: of the steps where their number was given, else of the minutes."""
        done = self.step / self.given.steps if self.given.steps else self.clock.minutes / self.given.minutes
        return min(done, 1.0)

    def stage(self) -> Stage:
        return [stage for stage in STAGES if stage.begin <= self.progress][-1]

    def train(self) -> None:
        given = self.given
        scored = saved = logged = self.clock.minutes
        losses: list[float] = []
        pixels, seconds, waited = 0, 0.0, 0.0
        self.clock.step()
        while self.progress < 1:
            stage = self.stage()
            self.feed.wanted = stage.wanted(given.batch)
            begun = time.perf_counter()
            rgb, labels = self.feed.next()
            waited += time.perf_counter() - begun
            losses.append(self.learn(rgb, labels, stage))
            pixels += labels.size
            seconds += self.clock.step()
            if self.clock.minutes - logged > 0.25:
                logged = self.clock.minutes
                self.note(losses, pixels / seconds / (512 * 1024), waited / seconds, stage)
                losses, pixels, seconds, waited = [], 0, 0.0, 0.0
            if self.clock.minutes - scored > given.evaluate:
                scored = self.clock.minutes
                self.score()
            if self.clock.minutes - saved > 2:
                saved = self.clock.minutes
                self.save()
                self.clock.other()
        self.score()
        self.save()

    def learn(self, rgb: Any, labels: Any, stage: Stage) -> float:
        """One step; returns its loss."""
        import torch

        from train.learning import loss_of, prepared, rate_at

        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(self.progress, self.given.rate)
        weights = self.balance.weights(labels).to(self.device)
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
            scores = self.network.train()(prepared(rgb, self.device))
        loss = loss_of(scores, torch.from_numpy(labels).to(self.device).long(), weights, stage.whole)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.step += 1
        self.average.update(self.network, self.step)
        return float(loss.detach())

    def note(self, losses: list[float], rate: float, waited: float, stage: Stage) -> None:
        """A line in the log. The rate is in whole pictures (512 x 1024 pixels) a second, ``waited`` the share of
        the time that was spent waiting for crops."""
        values = {
            "step": self.step,
            "minutes": round(self.clock.minutes, 3),
            "loss": round(sum(losses) / len(losses), 4),
            "pictures_per_s": round(rate, 3),
            "waited": round(waited, 3),
            "crop": list(stage.size),
            "rate": float(f"{self.optimiser.param_groups[0]['lr']:.3g}"),
        }
        self.log.write("step", **values)
        print(" ".join(f"{key} {value}" for key, value in values.items()), flush=True)

    def score(self) -> None:
        """The averaged weights on the held-out scenes: into the log, the curve and demo.pt."""
        import cv2
        import torch

        from train.learning import CLASSES, evaluate
        from train.progress import draw_curve, write_whole

        document = evaluate(self.average.network, self.scenes, self.device).document()
        iou = {entry["name"]: entry["iou"] for entry in document["classes"]}
        minutes = round(self.clock.minutes, 3)
        self.log.write(
            "evaluation",
            step=self.step,
            minutes=minutes,
            miou=document["miou"],
            pixel_accuracy=document["pixel_accuracy"],
            iou=iou,
        )
        print(
            f"minutes {minutes} mIoU {document['miou']:.4f}", {k: v and round(v, 2) for k, v in iou.items()}, flush=True
        )
        _, picture = cv2.imencode(".png", draw_curve(self.log.read()))
        write_whole(self.output / "curve.png", lambda part: part.write_bytes(picture.tobytes()))
        state = {f"module.{key}": value.cpu() for key, value in self.average.network.state_dict().items()}
        checkpoint = {"num_classes": CLASSES, "state_dict": state}
        write_whole(self.output / "demo.pt", lambda part: torch.save(checkpoint, part))
        self.clock.other()

    def save(self) -> None:
        """All that --resume needs, into last.pt."""
        import torch

        from train.progress import write_whole

        everything = {
            "step": self.step,
            "minutes": self.clock.minutes,
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "seen": torch.from_numpy(self.balance.seen),
        }
        write_whole(self.output / "last.pt", lambda part: torch.save(everything, part))

    def load(self) -> float:
        """What ``save`` has written; returns the minutes that have gone into it."""
        import torch

        saved = torch.load(self.output / "last.pt", map_location=self.device, weights_only=True)
        self.network.load_state_dict(saved["network"])
        self.average.network.load_state_dict(saved["average"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.scaler.load_state_dict(saved["scaler"])
        self.balance.seen = saved["seen"].cpu().numpy()
        self.step = int(saved["step"])
        return float(saved["minutes"])

    def close(self) -> None:
        self.feed.close()


def _keep_memory() -> None:
    """Asks glibc to keep freed memory: else the pages of every large tensor are taken anew in every step."""
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_threshold = -1, -3
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "train_street.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", required=True, metavar="FOLDER", help="where the log, curve and checkpoints go")
    add("--minutes", type=float, default=60.0, help="how long to train; pauses (SIGSTOP) don't count [60]")
    add("--steps", type=int, default=0, help="train for so many steps instead; the same crops come on every run")
    add("--resume", action="store_true", help="go on from OUTPUT/last.pt")
    add("--seed", type=int, default=1, help="of the weights, scenes and crops [1]")
    add("--batch", type=float, default=1.0, metavar="FACTOR", help="multiplies the batch sizes, for a GPU [1]")
    add("--rate", type=float, default=2e-3, help="the learning rate's peak [0.002]")
    add("--decay", type=float, default=0.01, help="weight decay [0.01]")
    add("--precision", choices=("auto", "fp32"), default="auto", help="auto: bfloat16, float16 on older GPUs [auto]")
    add("--device", default="", help="cpu, cuda, cuda:1 ... [cuda where there is one]")
    add("--threads", type=int, default=0, help="of PyTorch [as many as it takes by itself]")
    add("--workers", type=int, default=1, help="processes that draw scenes; a GPU wants many [1]")
    add("--fresh", type=float, default=0.2, help="new scenes drawn for a 512x1024 picture's worth of crops [0.2]")
    add("--keep", type=int, default=150, help="scenes that each worker keeps, 8 MB each [150]")
    add("--evaluate", type=float, default=5.0, metavar="MINUTES", help="how often to score [5]")
    add("--scenes", type=int, default=24, help="held-out scenes to score on [24]")
    add(
        "--camvid",
        default="",
        metavar="PATH",
        help="mix in labelled real frames: a CamVid folder with train/ and trainannot/. Not for weights that are "
        "given away: CamVid's licence is for non-commercial use",
    )
    add("--camvid-share", type=float, default=0.2, help="share of crops from --camvid [0.2]")
    given = parser.parse_args(argv)
    if given.minutes <= 0 or given.steps < 0 or given.workers < 1 or given.keep < 4:
        parser.error("--minutes must be above 0, --steps not below 0, --workers at least 1, --keep at least 4")
    if given.resume and not (Path(given.output) / "last.pt").is_file():
        parser.error(f"there is no {given.output}/last.pt to go on from; leave --resume away to begin")
    return given


if __name__ == "__main__":
    sys.exit(main())
