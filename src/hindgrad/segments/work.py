"""The work of one call: what is kept, and the steps from one kept position to the next."""

import dataclasses
import errno
import hashlib
import re
import zlib
from importlib.metadata import version
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hindgrad import placement, several, trees
from hindgrad.adjoints import Adjoint, Hypergradient
from hindgrad.adjoints.base import Piece
from hindgrad.checkpoint import Call, contents, described
from hindgrad.errors import RunError, SourceError
from hindgrad.jaxprs import constants
from hindgrad.objective import RunScore
from hindgrad.optimizers.moves import State
from hindgrad.progress import Bar
from hindgrad.segments import run as programs
from hindgrad.segments.kept import Kept, blank
from hindgrad.segments.order import Forward, Order
from hindgrad.segments.run import SegmentedRun, Way
from hindgrad.streams.ahead import changed
from hindgrad.streams.stream import Steps, Stream

MESH = re.compile(r"(?:Abstract)?Mesh\((?:[^()]|\([^()]*\))*\)")
"""A mesh in the text of a program."""
BACK = 3
"""How much longer the way back through a segment takes than the way forward, about."""


class Plan:
    """What is to be done, and the structs of what is kept."""

    def __init__(
        self, run: SegmentedRun, stream: Stream | None, total: int, length: int, order: Order
    ):
        if stream is not None:  # until a segment's batches are read
            run = _with_batches(run, stream.ahead.zeros(length), stream)
        self.run, self.stream = run, stream
        self.total, self.length, self.order = total, length, order
        self.is_taped = order.slots is None and not run.pieces.replays
        self.begin = programs.begun(run, length)
        self.piece, self._steps_program = self._traced(length)
        sees_losses = isinstance(run.objective.score, RunScore)
        self.losses = np.zeros(total, self.piece.losses.dtype) if sees_losses else None
        way, self._score_program = programs.scored.traced(run, self.begin, self.losses, length)
        self.way = way._replace(position=self.begin if self.is_taped else None)
        self._back_program = self._traced_back(way)

    def call(self, adjoint: Adjoint) -> Call:
        """What must be the same for another call to go on."""
        segments, slots = self.order
        arrays = eqx.filter(self.run.objective, eqx.is_array)
        return Call(
            {
                "hindgrad": version("hindgrad"),
                "jax": version("jax"),
                "steps": self.total,
                "segments": segments,
                "slots": slots,
                "adjoint": described(adjoint),
                "key": contents(self.run.key),
                "hyper": contents(self.run.hyper),
                "source": [] if self.stream is None else self.stream.ahead.described(),
                "objective's arrays": contents(jax.tree.leaves(arrays)),
                "objective": [
                    _digest(self._steps_program),
                    _digest(self._score_program),
                    _digest(self._back_program),
                ],
            },
            devices=placement.devices((self.run, self.begin)),
        )

    def range(self, segment: int) -> tuple[Array, int]:
        """The first step of a segment, and how many it has."""
        first = segment * self.length
        return jnp.int32(first), min(self.length, self.total - first)

    def run_of(self, segment: int) -> tuple[SegmentedRun, np.ndarray]:
        """The run with a segment's batches, and their fingerprint (0 if they are no stream's)."""
        if self.stream is None:
            return self.run, np.zeros((), np.uint32)
        first, steps = self.range(segment)
        ahead, is_split = self.stream.ahead, self.stream.split is not None
        block = several.together(lambda: ahead.block(int(first), steps, self.total))
        prints = several.of_all(block.fingerprint)
        if not is_split and len(set(prints)) > 1:
            raise SourceError(
                f"The processes read other rows for steps {int(first)} to "
                f"{int(first) + steps - 1}. Give all of them the same source; with "
                "hg.stream(split=…), each reads its own rows of it."
            )
        fingerprint = zlib.crc32(np.asarray(prints, np.uint32).tobytes()) if is_split else prints[0]
        return _with_batches(self.run, block, self.stream), np.asarray(fingerprint, np.uint32)

    def piece_of(self, segment: int) -> Piece:
        """The structs of what a segment gives."""
        _, steps = self.range(segment)
        return self.piece if steps == self.length else self._traced(steps).result

    @property
    def room(self) -> int:
        """The bytes that are kept at a time, at most."""
        segments, slots = self.order
        if self.is_taped:
            positions = 3  # the first, the latest, and the one being written
        else:
            positions = 1 + (segments if slots is None else min(slots, segments))
        tapes = segments * trees.nbytes(self.piece.tape)
        losses = self.total * self.piece.losses.dtype.itemsize
        return positions * trees.nbytes(self.begin) + tapes + losses + 2 * trees.nbytes(self.way)

    def cost(self, at: int | None, places: set[int]) -> int:
        """The work ahead, in segments run forward: from the last of these kept positions, or on
        the way back from the position `at`."""
        segments, ahead = self.order.segments, 0
        if at is None:
            actions = list(self.order.forward(max(places)))
            ahead, at = len(actions), segments
            places = places | {a.segment + 1 for a in actions if a.is_kept} | {segments - 1}
        if self.is_taped:
            return ahead + BACK * at
        return ahead + self.order.cost(at, places) + (BACK + 1) * at

    def _traced_back(self, way):
        """The program of the way back, which has the loss's own derivative rules in it."""
        begin, run, steps = self.begin, self.run, self.length
        if run.pieces.replays:
            ends = begin, Piece(None, self.piece.losses, None, None)
        else:
            traced = programs.advanced.traced(run, jnp.int32(0), begin, steps, True)
            ends = None, traced.result._replace(fault=None)
        ends, way = blank((ends, way))
        return programs.pulled.traced(run, jnp.int32(0), steps, ends, way).program

    def _traced(self, steps):
        return programs.advanced.traced(self.run, jnp.int32(0), self.begin, steps, self.is_taped)


def _with_batches(run, block, stream):
    return dataclasses.replace(run, batches=Steps.of(stream, block))


def carried_out(plan: Plan, kept: Kept, progress: bool | None) -> Hypergradient:
    """The hypergradient, from wherever a call before has come to.

    Raises `OSError` if there is no room for what is kept.
    """
    at, places = min(kept.numbers("way"), default=None), kept.numbers("position")
    if at is None and not places:
        _check_room(plan.room, kept)
        kept.save("position", 0, plan.begin)
        places = {0}
    with Bar(plan.cost(at, places), shown=progress) as bar:
        bar.note(f"Keeps up to {_size(plan.room)} in {kept.where}.")
        work = _Work(plan, kept, bar)
        if at is None:
            work.forward(max(places))
            at = plan.order.segments
        way = work.back(at)
    return Hypergradient(way.value, programs.finished(plan.run, way))


class _Work:
    """The steps of a call."""

    def __init__(self, plan: Plan, kept: Kept, bar: Bar):
        self.plan, self.kept, self.bar = plan, kept, bar
        self.fingerprint: Any = None
        """That of the batches of the segment run last."""
        self.latest: dict[int, Any] = {}
        """The two positions seen last."""

    def forward(self, at: int) -> None:
        """From the position `at` to the end and the score."""
        plan, kept = self.plan, self.kept
        for segment, is_kept in plan.order.forward(at):
            piece = self._advanced(segment, keep=plan.is_taped)
            marks = plan.run.pieces.marks(self.latest[segment])
            kept.save("losses", segment, (piece.losses, self.fingerprint, marks))
            if plan.is_taped:
                kept.save("tape", segment, piece.tape)
            if is_kept:
                kept.save("position", segment + 1, piece.position)
            if plan.is_taped and segment:  # the way back finds it again
                kept.drop("position", segment)
        self.bar.stage("score")
        losses = plan.losses
        if losses is not None:
            losses = jnp.concatenate([self._losses(s) for s in range(plan.order.segments)])
        end = self._position(plan.order.segments)
        way = programs.scored(plan.run, end, losses, plan.length)
        way = way._replace(position=end if plan.is_taped else None)
        kept.save("way", plan.order.segments, way)

    def back(self, at: int) -> Way:
        """From the position `at` to the first."""
        plan, kept = self.plan, self.kept
        way = kept.load("way", at, plan.way)
        places = kept.numbers("position") | set(self.latest)
        places = set(range(at)) if plan.is_taped else places
        for action in plan.order.back(at, places):
            segment = action.segment
            if isinstance(action, Forward):
                piece = self._advanced(segment, keep=False)
                if action.is_kept:
                    kept.save("position", segment + 1, piece.position)
                continue
            way = self._pulled(segment, way)
            kept.save("way", segment, way)
            self._forget(segment)
        return way

    def _advanced(self, segment, *, keep):
        """What a segment gives."""
        plan = self.plan
        self.bar.stage(f"segment {segment + 1} of {plan.order.segments}, forward")
        position, (start, steps) = self._position(segment), plan.range(segment)
        run, self.fingerprint = plan.run_of(segment)
        piece = programs.advanced(run, start, position, steps, keep)
        self._check(piece.fault, segment)
        self.latest = {segment: position, segment + 1: piece.position}
        self.bar.done(1)
        return piece

    def _pulled(self, segment, way):
        """The way back at the start of a segment."""
        plan = self.plan
        before, piece = self._ends(segment, way)
        self.bar.stage(f"segment {segment + 1} of {plan.order.segments}, back")
        start, steps = plan.range(segment)
        run = self._same_run(segment)
        way, fault = programs.pulled(
            run, start, steps, (before, piece), way._replace(position=None)
        )
        self._check(fault, segment)
        *_, marks = self._recorded(segment)
        self._check(plan.run.pieces.fault(np.asarray(marks), way.position), segment)
        self.bar.done(BACK + 1 if plan.run.pieces.replays else BACK)
        return way if plan.is_taped else way._replace(position=None)

    def _ends(self, segment, way):
        """The position before a segment and what it gave, as far as the way back needs them."""
        plan, losses = self.plan, self._losses(segment)
        if plan.run.pieces.replays:
            return self._position(segment), Piece(None, losses, None, None)
        if not plan.is_taped:
            return None, self._advanced(segment, keep=True)._replace(losses=losses, fault=None)
        tape = self.kept.load("tape", segment, plan.piece_of(segment).tape)
        return None, Piece(way.position, losses, tape, None)

    def _position(self, number):
        if number not in self.latest:
            self.latest = {number: self.kept.load("position", number, self.plan.begin)}
        return self.latest[number]

    def _losses(self, segment):
        return self._recorded(segment)[0]

    def _same_run(self, segment):
        """The run with the batches that a segment had on the way forward."""
        run, fingerprint = self.plan.run_of(segment)
        if self._recorded(segment)[1] != fingerprint:
            first, steps = self.plan.range(segment)
            raise SourceError(changed(int(first), steps))
        return run

    def _recorded(self, segment):
        """A segment's losses, its batches' fingerprint, and the marks of the position before."""
        plan = self.plan
        marks = plan.run.pieces.marks(plan.begin)
        like = plan.piece_of(segment).losses, np.zeros((), np.uint32), marks
        return self.kept.load("losses", segment, like)

    def _forget(self, segment):
        """What is not needed once the way back has come to the start of a segment."""
        kept = self.kept
        kept.drop("way", segment + 1)
        kept.drop("tape", segment)
        kept.drop("losses", segment)
        for number in kept.numbers("position"):
            if number >= max(segment, 1):
                kept.drop("position", number)

    def _check(self, fault, segment):
        if fault is None or not fault[0]:
            return
        params, memory, _ = self.plan.run.like
        paths = jax.tree_util.tree_leaves_with_path(State(params, memory))
        leaves = [jax.tree_util.keystr(path).removeprefix(".") for path, _ in paths]
        first = segment * self.plan.length
        raise RunError(f"Reversible: {self.plan.run.pieces.describe(fault, first, leaves)}")


def _check_room(needed, kept):
    if kept.free is not None and kept.free < needed:
        raise OSError(
            errno.ENOSPC,
            f"hypergradient keeps up to {_size(needed)}, and {kept.where} has room for "
            f"{_size(kept.free)}. Give slots=…, so that fewer positions are kept, or another "
            "directory",
        )


def _size(count):
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _digest(program):
    """What distinguishes a program: its text, without the number of devices, and the numbers in it,
    at every depth."""
    text = re.sub(r" at 0x[0-9a-f]+", "", str(program.jaxpr))
    text = MESH.sub("", text)
    parts = [text, *contents(list(constants(program)))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
