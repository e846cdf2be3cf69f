"""The models of one folder on disk. Every method reads the disk; none loads a model."""

import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from app.contract.models import ModelFacts
from app.errors import ModelBroken, UnknownModel
from app.manifest import MANIFEST_NAME, AnyManifest, Manifest, folder_name, read_any_manifest

logger = logging.getLogger(__name__)


class Shelf:
    """A folder with a sub-folder for each model."""

    def __init__(self, models_dir: Path, context_length: int | None = None) -> None:
        """Look at a folder.

        Args:
            models_dir: has a sub-folder for each model.
            context_length: what no model has more of here; None: no limit.
        """
        self._models_dir = models_dir
        self._context_length = context_length

    def available(self) -> list[AnyManifest]:
        """List the models, by name; a broken folder is left out and logged."""
        manifests = []
        for path in self._manifest_paths():
            try:
                manifests.append(read_any_manifest(path.parent))
            except ModelBroken as error:
                logger.warning("model_broken %s", error)
        return manifests

    def find(self, model_id: str) -> tuple[Path, AnyManifest]:
        """Look one model up: its folder, and what that says.

        Raises:
            UnknownModel: there is no such folder, or it holds a model of another name.
            ModelBroken: the folder is not a whole model.
        """
        # A name is looked up among the folders, so that none can lead out of them.
        folders = {path.parent.name: path.parent for path in self._manifest_paths()}
        folder = folders.get(folder_name(model_id))
        if folder is None:
            raise UnknownModel(model_id)
        manifest = read_any_manifest(folder)
        if manifest.model_id != model_id:
            raise UnknownModel(model_id)
        return folder, manifest

    def facts(self) -> list[ModelFacts]:
        """What dialects are told of the models, by name, each followed by its adapters."""
        return [
            self._limited(facts)
            for manifest in self.available()
            for facts in (facts_of(manifest), *_adapters_of(manifest))
        ]

    def describe(self, model_id: str) -> ModelFacts:
        """What dialects are told of one model, or of an adapter.

        Raises:
            UnknownModel: there is no such model, or it has no such adapter.
            ModelBroken: the folder is not a whole model.
        """
        base_id, adapter = split_name(model_id)
        _, manifest = self.find(base_id)
        facts = facts_of(manifest)
        if adapter is not None:
            facts = list(_adapters_of(manifest))[adapter_number(manifest, adapter) - 1]
        return self._limited(facts)

    def _limited(self, facts: ModelFacts) -> ModelFacts:
        context_length = min(facts.context_length, self._context_length or facts.context_length)
        return msgspec.structs.replace(facts, context_length=context_length)

    def _manifest_paths(self) -> list[Path]:
        return sorted(self._models_dir.glob(f"*/{MANIFEST_NAME}"))


def split_name(model_id: str) -> tuple[str, str | None]:
    """The model and the adapter of `publisher/name:adapter`; None: it names none."""
    base_id, colon, adapter = model_id.partition(":")
    return base_id, adapter if colon else None


def adapter_number(manifest: AnyManifest, name: str) -> int:
    """The number that a model's graph knows an adapter by, from 1.

    Raises:
        UnknownModel: it has no such adapter; says which it has.
    """
    names = [one.name for one in manifest.adapters] if isinstance(manifest, Manifest) else []
    if name not in names:
        there_are = ", ".join(names) or "none"
        raise UnknownModel(
            f"{manifest.model_id}:{name}", f"{manifest.model_id} has as adapters: {there_are}"
        )
    return names.index(name) + 1


def _adapters_of(manifest: AnyManifest) -> Iterator[ModelFacts]:
    if isinstance(manifest, Manifest):
        base = facts_of(manifest)
        for adapter in manifest.adapters:
            yield msgspec.structs.replace(
                base,
                model_id=f"{base.model_id}:{adapter.name}",
                adapter_of=base.model_id,
                description=f"A LoRA adapter of rank {adapter.rank}, for {base.model_id}",
                size_bytes=adapter.size_bytes,
            )


def facts_of(manifest: AnyManifest) -> ModelFacts:
    """Say what dialects are told of a model on disk."""
    return ModelFacts(
        model_id=manifest.model_id,
        kind=manifest.kind,
        width=manifest.graph.width if manifest.kind == "embedding" else None,
        description=manifest.description,
        architecture=manifest.architecture,
        chat=isinstance(manifest, Manifest) and manifest.chat,
        created=datetime.fromisoformat(manifest.created),
        context_length=manifest.graph.context_length,
        quantisation=scheme_of(manifest),
        size_bytes=manifest.size_bytes,
    )


def scheme_of(manifest: AnyManifest) -> Literal["none", "w8a8", "int8", "int4"]:
    """Say how a model's weights are stored."""
    if isinstance(manifest, Manifest):
        return manifest.quantisation.scheme
    return manifest.scheme
