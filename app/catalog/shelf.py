"""The models of one folder on disk. Every method reads the disk; none loads a model."""

import logging
from datetime import datetime
from pathlib import Path
from typing import Literal

from app.contract.models import ModelFacts
from app.errors import ModelBroken, UnknownModel
from app.manifest import MANIFEST_NAME, AnyManifest, Manifest, folder_name, read_any_manifest

logger = logging.getLogger(__name__)


class Shelf:
    """A folder with a sub-folder for each model."""

    def __init__(self, models_dir: Path) -> None:
        self._models_dir = models_dir

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

    def _manifest_paths(self) -> list[Path]:
        return sorted(self._models_dir.glob(f"*/{MANIFEST_NAME}"))


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
