"""Stage ``train``: fine-tune conv4_3; see `reconstruct.training` for the flow.

last.safetensors  best.safetensors  best.json  curves.csv  curves.svg
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from torch import nn

from reconstruct.atomic import atomic_path
from reconstruct.fingerprints import fingerprint
from reconstruct.parallel import ahead
from reconstruct.stages import Context, Plan
from reconstruct.stages.whole import WholeStage
from reconstruct.torch_device import resolve_device
from reconstruct.training.checkpoint import (
    State,
    commit,
    read_state,
    restore,
    save_best,
    save_last,
)
from reconstruct.training.curves import draw, write_csv, write_tensorboard
from reconstruct.training.loading import fresh_examples
from reconstruct.training.loop import make_optimizer, steps, take_step, validate
from reconstruct.training.maps import VALIDATION, Example, GroupSource, Maps
from reconstruct.training.network import head_tensors, make_head

logger = logging.getLogger(__name__)


class Train(WholeStage):
    """The stage. maps: None where the trunk runs with every step."""

    name = "train"

    def __init__(self, context: Context, source: GroupSource, maps: Maps | None) -> None:
        workspace = context.workspace
        super().__init__(context, workspace.trained, [] if maps is None else [maps])
        self.source = source
        self.maps = maps
        self.config = source.config
        self.last, self.best = workspace.checkpoint, self.artifact
        self.total = self.config.train.groups * self.config.train.epochs
        self.commit: str | None = None

    def find_fingerprint(self) -> str:
        """Fingerprint over the data, the settings and the weights to start from."""
        settings = self.config.train.identity(), self.config.validation.identity()
        start = self.source.weights.content_hash()  # of which the maps only know the trunk
        return fingerprint("training", self.source.fingerprint, *settings, self.config.seed, start)

    def plan(self) -> Plan:
        """How many steps are left."""
        plan = super().plan()
        state = read_state(self.last)
        done = state.step if state is not None and state.fingerprint == self.fingerprint() else 0
        if plan.state != "done" and done:
            return Plan("missing", f"goes on from step {done}", self.total - done, self.total)
        return Plan(plan.state, plan.why, 0 if plan.state == "done" else self.total, self.total)

    def discard(self) -> None:
        """Forget the checkpoints."""
        super().discard()
        self.last.unlink(missing_ok=True)

    def make(self) -> None:
        """Train from the last checkpoint of these settings, or from the start, to the end."""
        self._train()

    def _train(self) -> None:
        self.commit = commit()  # of the code that runs: the checkout may move on meanwhile
        train = self.config.train
        device = resolve_device(self.context.device)
        head = make_head(self.source.weights.tensors, train.layout, device)
        optimizer = make_optimizer(head)
        state = read_state(self.last)
        if state is not None and state.fingerprint == self.fingerprint():
            restore(self.last, head, optimizer)
            logger.info("train: goes on from step %d", state.step)
            self._draw(state)  # a kill may have come between the checkpoint and its curves
        else:
            state = State(self.find_fingerprint())
            self._validate(head, state)
        with self.context.reporter.task(self.name, self.total - state.step, "steps") as advance:
            for example in self._examples(state.step):
                state.rows.append(take_step(head, optimizer, example, train, state.step))
                state.step += 1
                advance()
                if state.step % self.config.validation.every == 0 or state.step == self.total:
                    self._validate(head, state)
                    save_last(self.last, head, optimizer, state)
                    self._draw(state)
                    self._log(state)

    def _validate(self, head: nn.Conv2d, state: State) -> None:
        """Compute the validation loss, and write the checkpoint if it is the best so far."""
        groups = range(self.config.validation.groups)
        loss = validate(head, (self._validation(i) for i in groups), self.config.train)
        if state.rows:
            state.rows[-1]["validation"] = loss
        logger.info("train: step %d, validation loss %.4f", state.step, loss)
        if not math.isfinite(loss) or (state.best_loss is not None and loss >= state.best_loss):
            return
        state.best_loss, state.best_step = loss, state.step
        save_best(self.best, self.source.weights.tensors, head_tensors(head), self._origin(state))

    def _validation(self, number: int) -> Example:
        if self.maps is not None:
            return self.maps.read(VALIDATION, number)
        return self.source.example(self.source.draw(VALIDATION, number))

    def _examples(self, first: int) -> Iterator[Example]:
        numbers = steps(self.config.seed, self.config.train, first)
        if self.maps is None:
            return fresh_examples(self.source, numbers, self.config.train.workers)
        maps = self.maps
        return ahead(lambda number: maps.read("train", number), numbers, 1)

    def _origin(self, state: State) -> dict[str, Any]:
        return {
            "trained": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": self.commit,
            "config": self.config.model_dump(mode="json"),
            "data": self.source.fingerprint,
            "starts_from": self.source.weights.content_hash(),
            "step": state.step,
            "validation_loss": state.best_loss,
        }

    def _draw(self, state: State) -> None:
        write_csv(self.workspace.curves, state.rows)
        with atomic_path(self.workspace.drawn_curves) as temporary:
            temporary.write_text(draw(state.rows), encoding="utf-8")

    def _log(self, state: State) -> None:
        root = self.context.workspace.root
        if self.config.train.tensorboard:
            write_tensorboard(root / "tensorboard", state.rows[-self.config.validation.every :])

    def figures(self) -> dict[str, Any]:
        """The best checkpoint; the curves go to the summary."""
        state = read_state(self.last)
        if state is None:
            return {}
        self.context.summary.drawings["training"] = draw(state.rows)
        return {
            "steps": state.step,
            "best validation loss": round(state.best_loss or math.nan, 4),
            "at step": state.best_step,
            "weights": str(self.best),
        }
