"""The outer loop: tasks, augmentation, meta-gradient, outer step, metric log; validation and checkpoints between."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, cast

import torch

from metaflowkit.composition.flow import Flow
from metaflowkit.composition.learner import placed
from metaflowkit.config import registry
from metaflowkit.errors import ConfigError, DivergenceError, Interrupted
from metaflowkit.evaluation.measurement import measurements, validate
from metaflowkit.evaluation.scores import Score
from metaflowkit.objectives.base import Objective
from metaflowkit.training import checkpoint
from metaflowkit.training.agreement import require_same_weights
from metaflowkit.training.checkpoint import Snapshot
from metaflowkit.training.events import Event, Saved, Stepped, Tested, Validated, Warned
from metaflowkit.training.metric_log import resume_command
from metaflowkit.training.prefetch import episodes
from metaflowkit.training.run_directory import RESTORE_FILE, Run
from metaflowkit.training.shared_outcome import shared_outcome
from metaflowkit.training.signs import SIGN, Watch, costly_metrics, embedding_metrics
from metaflowkit.training.stop import Stop
from metaflowkit.types import Episode, Outcome


class OuterLoop:
    """The state of a run between two outer steps.

    Where processes share the tasks, each has this state and calls the same methods in the same order; the first alone writes.

    Args:
        flow: the built pipeline.
        run: the run directory.
        stop: the request to end the run.
        tested: whether it ends with a test.
    """

    def __init__(self, flow: Flow, run: Run, stop: Stop, tested: bool) -> None:
        self.flow, self.run, self.stop, self.tested, self.world = flow, run, stop, tested, flow.world
        self.outer = flow.pipeline.outer
        self.parameters = flow.learner.trained(dict(flow.learner.model.named_parameters()))
        injected = {name: list(self.parameters.values()) for name in registry.OPTIMIZERS.injected}
        self.optimizer = placed(flow.pipeline, "outer.optimizer", lambda: registry.OPTIMIZERS.build(self.outer.optimizer, **injected))
        if not isinstance(self.optimizer, torch.optim.Optimizer):
            raise ConfigError(
                f"{flow.pipeline.place('outer.optimizer')}: must be a torch.optim.Optimizer, got {type(self.optimizer).__name__}; derive it from one"
            )
        self.lr = self.optimizer.param_groups[0]["lr"]
        self.schedule = placed(flow.pipeline, "outer.schedule", lambda: registry.SCHEDULES.build(self.outer.schedule, steps=self.outer.steps))
        if not isinstance(factor := self.schedule(1), int | float):
            kind = f"{type(self.schedule).__name__} must return a number from each outer step, got {type(factor).__name__}"
            raise ConfigError(f"{flow.pipeline.place('outer.schedule')}: {kind}")
        self.decay = cast(Objective, flow.learner.objective).average_decay
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()} if self.decay is not None else {}
        self.step = 0
        self.saved: int | None = None
        self.best: dict[str, float] | None = None
        self.untrained: float | None = None
        self.episodes: dict[str, list[float]] = {}
        self.before: list[Score] = []
        self.after: list[Score] = []
        self.watch = Watch(flow.pipeline)
        self.stopping = False
        self._upcoming: Iterator[Episode] | None = None
        self._new_events: list[Event] = []

    def new_events(self) -> list[Event]:
        """The events since the last call."""
        pending, self._new_events = self._new_events, []
        return pending

    def begin(self) -> None:
        """Measure and save the untrained network."""
        self._on_first(lambda: self.run.metric_log.rewind(0))
        score = self.validate()
        if score is not None:
            self.untrained, self.episodes["untrained"] = score.value, list(score.each)
        self.save()
        self._add_validated(score)

    def restore(self) -> None:
        """Go on from the newest checkpoint, also where other numbers of processes wrote it.

        Raises:
            CheckpointError: it cannot be read, or is one of another run.
        """
        snapshot = self.world.from_first(self._newest)
        self.flow.learner.model.load_state_dict(snapshot.model)
        self.optimizer.load_state_dict(snapshot.optimizer)
        self.average = {name: value.to(self.flow.device) for name, value in snapshot.average.items()}
        self._on_first(lambda: self._rewind(snapshot.journal))
        self.step = self.saved = snapshot.step
        self.best, self.untrained, self.episodes = snapshot.best, snapshot.untrained, snapshot.episodes

    def _rewind(self, length: int) -> None:
        self.run.metric_log.rewind(length)
        self.watch.replay(self.run.metric_log.read())

    def _newest(self) -> Snapshot:
        snapshot = self.load_checkpoint(checkpoint.saved(self.run.checkpoints)[-1])
        if snapshot.best is not None:
            self.load_checkpoint(self.run.checkpoints / "best.pt")  # it is read again after training, too late for an error message
        return snapshot

    def _on_first(self, write: Callable[[], object]) -> None:
        """Do what the first process alone does, such as writing."""
        with self.world.together():
            if self.world.first:
                write()

    def load_checkpoint(self, path: Path) -> Snapshot:
        """A checkpoint of this run.

        Raises:
            CheckpointError: it cannot be read, or is one of another run.
        """
        snapshot = self.run.load_checkpoint(path)
        checkpoint.require_fit(snapshot, path, self.flow.learner.model, RESTORE_FILE)
        return snapshot

    def advance(self) -> None:
        """One outer step, then validation and checkpoint where they are due."""
        step = self.step + 1
        episode = self._next_episode()
        learner = dataclasses.replace(self.flow.learner, average=self.average) if self.average else self.flow.learner
        outcome, self.stopping = shared_outcome(self.flow, learner, episode, self.stop.requested is not None)
        norm, objective, metrics = self._read(outcome, step)
        validated = step % self.flow.pipeline.evaluate.every == 0 or step == self.outer.steps
        signs = embedding_metrics(self.flow, episode) | (costly_metrics(self.flow, episode, outcome) if validated else {})
        scale = min(1.0, self.outer.clip / norm) if self.outer.clip is not None and norm > 0 else 1.0
        for name, parameter in self.parameters.items():
            parameter.grad = outcome.gradients[name].to(parameter.dtype) * scale
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * self.schedule(step)
        self.optimizer.step()
        for name, value in self.average.items():
            value.lerp_(self.parameters[name].detach(), 1 - cast(float, self.decay))
        self.step = step
        metrics = {"objective": objective, "gradient_norm": norm, **metrics, **signs}
        metrics = {f"train/{name}": value for name, value in metrics.items()}
        warned = self._logged(step, metrics)
        self._new_events.append(Stepped(step, metrics["train/objective"], metrics, self.flow.examples_in(episode)))
        self._new_events += warned
        saved = validated or step % (self.outer.save_every or self.outer.steps) == 0
        if saved:
            self.flow.calibrate()
        score = self.validate() if validated else None
        if validated:
            self.judge(score)
        if saved:
            self.save()
        self._add_validated(score)

    def _next_episode(self) -> Episode:
        if self._upcoming is None:
            self._upcoming = episodes(self.flow, self.step + 1, self.outer.steps, self.outer.prefetch)
        return next(self._upcoming)

    def close(self) -> None:
        """End the process that draws episodes, if there is one."""
        self._upcoming = None

    def _add_validated(self, score: Score | None) -> None:
        """The event of a validation comes after the validated weights are saved."""
        if score is not None:
            self._new_events.append(Validated(self.step, score))

    def check_stop(self) -> None:
        """End the run where the user, the system or the caller requested it, with the state saved.

        Raises:
            Interrupted: it was requested.
        """
        if self.stopping or (self.world.size == 1 and self.stop.requested):
            if self.saved != self.step:
                self.flow.calibrate()
                self.save()
            origin = next(filter(None, self.world.gather(self.stop.requested)))
            text = f"{self.run.folder}: stopped by {origin} after step {self.step}, all is saved; go on with {resume_command(self.run.folder)}"
            with self.world.together():
                raise Interrupted(text, origin)

    def _check_stop_now(self) -> None:
        """:meth:`check_stop` where no outer step has told the processes of each other's requests."""
        self.stopping = any(self.world.gather(self.stop.requested is not None))
        self.check_stop()

    def validate(self) -> Score | None:
        """The validation of the current weights, written to the metric log; None where nothing is held out for it."""
        score = validate(self.flow)
        if score is not None:
            self._new_events += self._logged(self.step, {f"val/{score.metric.name}": score.value, "val/ci95": score.ci95})
        return score

    def _logged(self, step: int, line: dict[str, float]) -> list[Event]:
        """Write a line of the metric log, and the signs of failure that it shows; these as events."""
        if not self.world.first:
            return []
        self.run.metric_log.write(step, **line)
        signs = self.watch.add(line)
        for sign in signs:
            self.run.metric_log.write(step, **{SIGN: sign.name, "text": sign.text})
        return [Warned(step, sign.name, sign.text) for sign in signs]

    def judge(self, score: Score | None) -> None:
        """Keep these weights as ``best.pt`` where they are the best so far (the last ones without validation)."""
        if score is None or self.best is None or score.metric.better(score.value, self.best["value"]):
            self.best = {"step": self.step, "value": score.value if score is not None else math.nan}
            self.episodes["best"] = list(score.each) if score is not None else []
            self._on_first(lambda: checkpoint.save(self.snapshot(), self.run.checkpoints / "best.pt"))

    def snapshot(self) -> Snapshot:
        """The state to go on from."""
        model = self.flow.learner.model.state_dict()
        text, journal = self.flow.pipeline.to_yaml(), self.run.metric_log.length()
        return Snapshot(
            self.step,
            model,
            self.optimizer.state_dict(),
            journal,
            self.best,
            self.untrained,
            text,
            self.episodes,
            list(self.flow.interface.shape),
            self.average,
        )

    def save(self) -> None:
        """Write a checkpoint, and remove the oldest."""
        path = checkpoint.step_path(self.run.checkpoints, self.step)
        require_same_weights(self.world, self.parameters)
        self._on_first(lambda: self._write(path))
        self.saved = self.step
        self._new_events.append(Saved(self.step, path))

    def _write(self, path: Path) -> None:
        checkpoint.save(self.snapshot(), path)
        checkpoint.prune(self.run.checkpoints)

    def test(self) -> Iterator[Tested]:
        """Test scores of the untrained network and of the best weights; the model keeps the latter."""
        model = self.flow.learner.model
        if not self.flow.has("test") or not self.tested:
            return
        best = self.world.from_first(lambda: self.load_checkpoint(self.run.checkpoints / "best.pt").model)
        untrained = self.flow.untrained()
        labels: tuple[Literal["untrained", "trained"], ...] = ("untrained", "trained")
        for label in labels:
            model.load_state_dict(untrained if label == "untrained" else best)
            if label == "untrained":
                self.flow.calibrate(start=True)
            for scores in measurements(self.flow, before_each=self._check_stop_now):
                (self.before if label == "untrained" else self.after).extend(scores)
                yield Tested(label, scores)

    def _milder(self) -> str:
        """A command that starts again with a tenth of the outer learning rate; the run itself, resumed, would meet the same gradient again."""
        if "lr" not in self.outer.optimizer.settings:
            return ""
        return f", such as with mfk run {shlex.quote(str(self.run.folder / 'pipeline.yaml'))} --set outer.optimizer.lr={self.lr / 10:g}"

    def _read(self, outcome: Outcome, step: int) -> tuple[float, float, dict[str, float]]:
        """Norm of the meta-gradient, objective and metrics as numbers, all in one transfer: a GPU would wait for the host at each.

        Raises:
            DivergenceError: the gradient or the objective is not finite.
        """
        squares = torch.stack([g.double().square().sum() for g in outcome.gradients.values()])
        scalars = [squares.sum().sqrt(), *(x.detach().to(squares) for x in (outcome.value, *outcome.metrics.values())), *squares]
        norm, objective, *others = torch.stack(scalars).tolist()
        metrics = dict(zip(outcome.metrics, others))
        finite = [math.isfinite(square) for square in others[len(metrics) :]]
        if math.isfinite(objective) and all(finite):
            return norm, objective, metrics
        name = next((name for name, is_finite in zip(outcome.gradients, finite) if not is_finite), "the objective alone")
        if all(parameter.isfinite().all() for parameter in self.parameters.values()):
            self.flow.calibrate()
            self.save()
        with self.world.together():
            path = checkpoint.step_path(self.run.checkpoints, cast(int, self.saved))
            raise DivergenceError(
                f"outer step {step}: the meta-gradient is not finite, first in {name} (objective {objective:g}); lower inner.rule.lr, "
                f"inner.steps or outer.optimizer.lr{self._milder()}; the last good state is saved in {path}; "
                f"measure it with mfk evaluate {shlex.quote(str(self.run.folder))} --weights last"
            )
        raise AssertionError("an error in all processes")
