"""Stage ``train``: what a `Learner` has to learn; see `reconstruct.training` for the flow.

last.safetensors  best.safetensors  best.json  curves.csv  curves.svg
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from torch import nn

from reconstruct.atomic import atomic_path
from reconstruct.fingerprints import fingerprint
from reconstruct.stages import Context, Plan, Precursor
from reconstruct.stages.whole import WholeStage
from reconstruct.torch_device import resolve_device
from reconstruct.training.checkpoint import State, commit, read_state, restore, save_last
from reconstruct.training.curves import draw, write_csv, write_tensorboard
from reconstruct.training.learner import Learner
from reconstruct.training.loop import take_step, validate

logger = logging.getLogger(__name__)


class Train(WholeStage):
    """The stage."""

    name = "train"

    def __init__(
        self, context: Context, learner: Learner, before: Sequence[Precursor] = ()
    ) -> None:
        workspace = context.workspace
        super().__init__(context, workspace.trained, before)
        self.learner = learner
        self.last, self.best = workspace.checkpoint, self.artifact
        self.total = learner.updates.steps
        self.commit: str | None = None

    def find_fingerprint(self) -> str:
        """Fingerprint over the data, the settings and the weights to start from."""
        return fingerprint("training", *self.learner.identity())

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
        learner = self.learner
        network = learner.network(resolve_device(self.context.device))
        optimizer = learner.optimizer(network)
        state = read_state(self.last)
        if state is not None and state.fingerprint == self.fingerprint():
            restore(self.last, network, optimizer)
            logger.info("train: goes on from step %d", state.step)
            self._draw(state)  # a kill may have come between the checkpoint and its curves
        else:
            state = State(self.find_fingerprint())
            self._validate(network, state)
        with self.context.reporter.task(self.name, self.total - state.step, "steps") as advance:
            for example in learner.examples(state.step):
                state.rows.append(take_step(learner, network, optimizer, example, state.step))
                state.step += 1
                advance()
                if state.step % learner.checks.every == 0 or state.step == self.total:
                    self._validate(network, state)
                    save_last(self.last, network, optimizer, state)
                    self._draw(state)
                    self._log(state)

    def _validate(self, network: nn.Module, state: State) -> None:
        """Compute the validation loss, and write the checkpoint if it is the best so far."""
        loss = validate(self.learner, network)
        if state.rows:
            state.rows[-1]["validation"] = loss
        logger.info("train: step %d, validation loss %.4f", state.step, loss)
        if not math.isfinite(loss) or (state.best_loss is not None and loss >= state.best_loss):
            return
        state.best_loss, state.best_step = loss, state.step
        origin = {
            **self.learner.origin(),
            "trained": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": self.commit,
            "step": state.step,
            "validation_loss": state.best_loss,
        }
        self.learner.save(self.best, network, origin)

    def _draw(self, state: State) -> None:
        write_csv(self.workspace.curves, state.rows)
        with atomic_path(self.workspace.drawn_curves) as temporary:
            temporary.write_text(draw(state.rows), encoding="utf-8")

    def _log(self, state: State) -> None:
        root = self.context.workspace.root
        if self.learner.updates.tensorboard:
            write_tensorboard(root / "tensorboard", state.rows[-self.learner.checks.every :])

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
