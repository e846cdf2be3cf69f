"""Change which models there are on disk: fetch, copy, delete. Implements `contract.ModelLibrary`.

Fetching runs the exporter in a process of its own: it needs torch, which no server should hold, and
its end frees all that it took. Knows nothing of how models are exported but what that prints.
"""

import asyncio
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Final

import msgspec

from app.catalog.shelf import Shelf, split_name
from app.contract.models import ModelRegistry, PullStep
from app.errors import InvalidParameter, ModelBroken, TryAgainLater, UnknownModel
from app.manifest import MANIFEST_NAME, Manifest, folder_name, write_manifest

logger = logging.getLogger(__name__)

NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
# `quantise: |####      | 3/7 [00:12]`, as tqdm writes it over and over
_BAR: Final = re.compile(r"(\w+):?\s*\|[^|]*\|\s*(\d+)/(\d+)")
_KEPT: Final = 4096
"""Characters of what the exporter prints that are kept for a refusal."""


class Library:
    """The models of one folder."""

    def __init__(self, models_dir: Path, models: ModelRegistry) -> None:
        """Manage a folder.

        Args:
            models_dir: has a sub-folder for each model.
            models: those in memory; one that is deleted leaves first.
        """
        self._models_dir = models_dir
        self._shelf = Shelf(models_dir)
        self._models = models
        self._pulling = ""

    async def pull(self, name: str) -> AsyncGenerator[PullStep, None]:
        """Fetch and export a model; see `ModelLibrary.pull`."""
        _check("model", name)
        await asyncio.to_thread(self._refuse_to_lose_adapters, name)
        if self._pulling:
            raise TryAgainLater(f"{self._pulling} is being fetched", 30)
        self._pulling = name
        try:
            # closed with this one, and not when it is collected: its process ends then
            async with aclosing(self._exported(name)) as steps:
                async for step in steps:
                    yield step
        finally:
            self._pulling = ""

    async def delete(self, model_id: str) -> None:
        """Delete a model; see `ModelLibrary.delete`."""
        _check_whole(model_id)
        folder, _ = await asyncio.to_thread(self._shelf.find, model_id)
        await self._models.unload(model_id)
        if folder.is_symlink():  # the model itself lies elsewhere, and is not ours to delete
            folder.unlink()
            logger.info("model_unlinked model=%s", model_id)
            return
        # without its manifest it is no model any more, whatever happens to the rest
        (folder / MANIFEST_NAME).unlink()
        await asyncio.to_thread(shutil.rmtree, folder)
        logger.info("model_deleted model=%s", model_id)

    async def copy(self, model_id: str, name: str) -> None:
        """Copy a model; see `ModelLibrary.copy`."""
        _check("destination", name)
        _check_whole(model_id)
        await asyncio.to_thread(self._copy, model_id, name)
        logger.info("model_copied model=%s to=%s", model_id, name)

    def _refuse_to_lose_adapters(self, name: str) -> None:
        """A model that is made anew would lose them: their folders are not known here."""
        try:
            _, manifest = self._shelf.find(name)
        except (UnknownModel, ModelBroken):
            return
        if isinstance(manifest, Manifest) and manifest.adapters:
            adapters = ", ".join(one.name for one in manifest.adapters)
            raise InvalidParameter(
                "model", name, f"a model without adapters; {name} has {adapters}: delete it first"
            )

    def _copy(self, model_id: str, name: str) -> None:
        folder, manifest = self._shelf.find(model_id)
        target = self._models_dir / folder_name(name)
        try:
            target.mkdir()
        except FileExistsError as error:
            raise InvalidParameter("destination", name, "a name that no model has") from error
        try:
            for file in manifest.files:
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(folder / file, target / file)
                except OSError:  # another file system, or one that knows no links
                    shutil.copyfile(folder / file, target / file)
            write_manifest(target, msgspec.structs.replace(manifest, model_id=name))
        except BaseException:
            shutil.rmtree(target)
            raise

    async def _exported(self, name: str) -> AsyncGenerator[PullStep, None]:
        out = (self._models_dir / folder_name(name)).resolve()
        with tempfile.TemporaryDirectory() as empty:
            # elsewhere a folder of this name would be taken for the model
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "export", name, "--out", str(out)),
                cwd=empty,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                yield PullStep("", 0, 0)
                said = ""
                assert process.stderr is not None, "it was asked for"
                while chunk := await process.stderr.read(_KEPT):
                    said = (said + chunk.decode(errors="replace"))[-_KEPT:]
                    if bars := _BAR.findall(said):
                        step, done, total = bars[-1]
                        yield PullStep(step, int(done), int(total))
                if await process.wait():
                    lines = said.replace("\r", "\n").strip().splitlines() or ["it said nothing"]
                    raise ModelBroken(f"{name} was not exported: {lines[-1]}")
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


def _check_whole(model_id: str) -> None:
    if split_name(model_id)[1] is not None:
        raise InvalidParameter("model", model_id, "a model: an adapter comes and goes with its own")


def _check(field: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise InvalidParameter(field, name, "publisher/name, of letters, digits, '.', '_' and '-'")
