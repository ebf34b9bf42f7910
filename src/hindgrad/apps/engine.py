"""Independent parts of a run, computed in other processes: on this machine, or on a cluster."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import joblib

from hindgrad.apps.settings import ArgumentError
from hindgrad.apps.work import CALL, Work
from hindgrad.files import write_whole
from hindgrad.progress import Bar

Part = Callable[[Work], object]
"""Computes a part of a run, all of whose pieces it keeps in the work."""

PIECES = (".json", ".safetensors")
"""The files that are pieces; others, such as checkpoints, stay where they are made."""


@final
@dataclass(frozen=True)
class Engine:
    """Where parts are computed: `loky`'s processes, `dask`'s workers; without a name, what
    `joblib.parallel_config` says, and if it says nothing, here."""

    name: str | None = None
    address: str | None = None
    """Of a Dask cluster's scheduler."""

    def compute(self, parts: Sequence[Part], work: Work) -> None:
        """Computes the parts and keeps their pieces in `work`, where whoever needs them finds them;
        here, nothing is done. A part whose worker is lost is computed anew by another one, if the
        engine sees to that, as Dask does."""
        with self._opened():
            jobs = -1 if self.name else None
            parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
            if self.name is None and parallel.n_jobs == 1:
                return
            kept = _read(work.folder)
            with Bar(len(parts)) as bar:
                bar.stage("parts in other processes")
                for pieces in parallel(joblib.delayed(_computed)(part, kept) for part in parts):
                    _write(work.folder, pieces or {})
                    bar.done(1)

    @contextmanager
    def _opened(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self.name == "dask":
                stack.enter_context(self._cluster())
            if self.name is not None:
                stack.enter_context(joblib.parallel_config(self.name))
            yield

    def _cluster(self) -> Any:
        from distributed import Client  # need not be installed

        try:
            return Client(self.address, timeout="5s")
        except (OSError, ValueError) as error:
            raise ArgumentError(
                f"--address {self.address}: no Dask scheduler answers there; start one by `dask "
                "scheduler`, and workers by `dask worker HOST`, with hindgrad installed."
            ) from error


def _computed(part: Part, kept: Mapping[str, bytes]) -> dict[str, bytes]:
    """The pieces of a part, computed in a folder of this process's own."""
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder))
        _write(work.folder, kept)
        part(work)
        return {name: x for name, x in _read(work.folder).items() if kept.get(name) != x}


def _read(folder: Path) -> dict[str, bytes]:
    """All pieces, by their places in the folder."""
    files = [path for path in folder.rglob("*") if path.suffix in PIECES and path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: path.read_bytes() for name, path in names.items() if name != CALL}


def _write(folder: Path, pieces: Mapping[str, bytes]) -> None:
    """Writes the pieces, each at once: an interrupted run goes on with those that are there."""
    for name, content in pieces.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, content)
