"""The adapters that are served beside a model, through the steps of an export.

Knows the steps' files, and the modules that do the work: `adapter.py` and `grafts.py`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from transformers import PreTrainedModel

from app import manifest as contract
from app.model_files import ModelFile
from export.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    Changes,
    beside,
    check_fit,
    has_adapter,
    read_changes,
    told_base,
)
from export.errors import SourceUnusable, UnsupportedModel
from export.grafts import graft, sites_of
from export.graph import OnnxGraph
from export.options import ExportOptions
from export.reference import logits_in_pieces
from export.session import GraphSession
from export.sites import SITES, Site
from export.source import ModelSource
from export.validate import measure_quality

GRAFTED: Final = "adapters.json"
"""Which adapters the quantised graph has."""


class _Identity(msgspec.Struct, frozen=True):
    """An adapter, as it was when it was put into the graph."""

    name: str
    config: ModelFile
    weights: ModelFile


def refuse_without_adapters(options: ExportOptions, source: ModelSource) -> None:
    """Refuse what can't have adapters, and folders that are none, before anything is done.

    Raises:
        UnsupportedModel: the source is an encoder.
        SourceUnusable: a folder holds no adapter, or one of a kind that can't be used.
    """
    if options.adapters and source.kind != "text":
        raise UnsupportedModel(source.model_id, "adapters are for models that generate text")
    for name, folder in options.adapters:
        if not has_adapter(folder):
            raise SourceUnusable(f"the adapter {name}: {folder} has no {ADAPTER_CONFIG}")
        told_base(folder)


def check_adapters(options: ExportOptions, model: PreTrainedModel) -> None:
    """Refuse adapters that are for another model.

    Raises:
        SourceUnusable: a change has no place in the model, or not the shape that it needs.
    """
    for _, folder in options.adapters:
        check_fit(folder, read_changes(folder), model)


def graft_adapters(graph: OnnxGraph, options: ExportOptions) -> str:
    """Add the adapters to a quantised graph, say so, and note which they were.

    Raises:
        SourceUnusable: an adapter changes what can't be changed in the graph.
    """
    (options.work / GRAFTED).write_bytes(msgspec.json.encode(_identities(options)))
    if not options.adapters:
        return ""
    adapters = _read(options)
    sites = msgspec.json.decode((options.work / SITES).read_bytes(), type=list[Site])
    chosen = sites_of(sites, adapters)
    graft(graph, chosen, adapters, blocks=options.scheme != "none")
    ranks = " + ".join(str(_rank(changes)) for changes in adapters.values())
    return f", adapters of rank {ranks} at {len(chosen)} products"


def refuse_other_adapters(options: ExportOptions) -> None:
    """Refuse to go on with other adapters than those in the graph, or in another order.

    Raises:
        SourceUnusable: says which they are.
    """
    grafted = msgspec.json.decode((options.work / GRAFTED).read_bytes(), type=list[_Identity])
    if grafted != _identities(options):
        names = ", ".join(one.name for one in grafted) or "none"
        raise SourceUnusable(
            f"the graph in {options.work} was made with other adapters, or with these in another "
            f"order: {names}; begin with the step quantise"
        )


def measure_adapters(
    options: ExportOptions, model: PreTrainedModel, session: GraphSession, ids: Sequence[int]
) -> dict[str, contract.Quality]:
    """Measure the graph with each adapter against torch with it, on the same text."""
    measured = {}
    for number, (name, folder) in enumerate(options.adapters, start=1):
        session.adapter_ids[0] = number
        with beside(model, read_changes(folder)):
            measured[name] = measure_quality(logits_in_pieces(model, ids), session, ids)
    session.adapter_ids[:] = 0
    return measured


def describe_adapters(
    options: ExportOptions, qualities: Sequence[contract.Quality]
) -> tuple[contract.Adapter, ...]:
    """Describe the adapters to the server."""
    return tuple(
        _described(name, folder, quality)
        for (name, folder), quality in zip(options.adapters, qualities, strict=True)
    )


def _described(name: str, folder: Path, quality: contract.Quality) -> contract.Adapter:
    changes, file = read_changes(folder), contract.describe_file(folder / ADAPTER_WEIGHTS)
    return contract.Adapter(
        name=name,
        rank=_rank(changes),
        targets=tuple(sorted({module.rpartition(".")[2] for module in changes})),
        base=told_base(folder) or "",
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        quality=quality,
    )


def _identities(options: ExportOptions) -> list[_Identity]:
    return [
        _Identity(
            name,
            contract.describe_file(folder / ADAPTER_CONFIG),
            contract.describe_file(folder / ADAPTER_WEIGHTS),
        )
        for name, folder in options.adapters
    ]


def _read(options: ExportOptions) -> dict[str, Changes]:
    return {name: read_changes(folder) for name, folder in options.adapters}


def _rank(changes: Changes) -> int:
    return max(len(change.first) for change in changes.values())
