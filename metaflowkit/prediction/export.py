"""The embedding of a run for use without this package: weights, programs that run them, a card, and an example."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import platform
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaflowkit import __version__
from metaflowkit.composition.flow import FewShotFlow
from metaflowkit.config.files import reason, remedy
from metaflowkit.config.types import Pipeline
from metaflowkit.errors import RunError
from metaflowkit.evaluation.embedding import CLOSE, depend_on_their_set, embed
from metaflowkit.models.normalisation import StoredNorm
from metaflowkit.prediction.classifier import Classifier
from metaflowkit.training.final_scores import read_final_scores
from metaflowkit.training.run_directory import Run

WEIGHTS, PROGRAM, ONNX, CARD, FACTS, EXAMPLE, PIPELINE = (
    "weights.safetensors", "embedding.pt2", "embedding.onnx", "README.md", "card.json", "example.py", "pipeline.yaml",
)  # fmt: skip
NEEDED_FOR_ONNX = ("onnx", "onnxscript", "onnxruntime")
EXAMPLE_TEXT = '''"""Classify images by a folder per class of labelled ones, in plain PyTorch: python example.py SUPPORT IMAGE..."""
import sys
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps

network = torch.export.load(Path(__file__).parent / "embedding.pt2").module()


def embed(paths):
    images = [ImageOps.exif_transpose(Image.open(path)).convert({mode!r}) for path in paths]
    images = [ImageOps.fit(i, ({size}, {size}), Image.Resampling.BOX if min(i.size) >= {size} else Image.Resampling.BILINEAR) for i in images]
    pixels = torch.from_numpy(numpy.stack([numpy.asarray({inverted}) for i in images])).float().div(255)
    return network({axes})


support = {{folder.name: sorted(path for path in folder.iterdir()) for folder in sorted(Path(sys.argv[1]).iterdir()) if folder.is_dir()}}
means = torch.stack([embed(paths).mean(0) for paths in support.values()])
for path, row in zip(sys.argv[2:], {scores}):
    print(path, list(support)[row.argmax()], sep="\\t")
'''


def export(run: Path, folder: Path, weights: str = "best", licence: str = "") -> list[str]:
    """Write the embedding of a run into a new folder, and hold what is written against the run's own.

    Args:
        run: the run directory, of images.
        folder: is made; it must not exist, or be empty.
        weights: ``best`` or ``last``.
        licence: of the training data, for the card.

    Returns:
        Lines that say what was written, and how far it is from the run.

    Raises:
        RunError: the folder holds files, cannot be written, or an exported program gives other features.
        CheckpointError: the run has no such weights.
        ConfigError: the run classifies no images.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder}: holds files already; choose a new folder with -o")
    classifier = Classifier.from_run(run, weights=weights)
    flow = _in_float32(classifier.loaded()[0])
    network = plain_network(flow.model.backbone)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        differences = _written(flow, network, partial)
        facts = card(Run(run), flow, classifier, weights, licence, differences)
        (partial / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        (partial / CARD).write_text(_card_text(facts), encoding="utf-8")
        (partial / EXAMPLE).write_text(_example(flow, classifier), encoding="utf-8")
        (partial / PIPELINE).write_text(Run(run).pipeline().to_yaml(), encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({reason(error)}); {remedy(error)}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    lines = [f"{name}: features differ by at most {difference:.1e} of the largest" for name, difference in differences.items()]
    if missing := _missing_for_onnx():
        lines.append(f"{ONNX} is left out, since {', '.join(missing)} is not installed; pip install 'metaflowkit[onnx]'")
    return [f"written to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}", *lines]


def _in_float32(flow: FewShotFlow) -> FewShotFlow:
    """The flow computing in float32, as exported programs do, whatever the precision of the run."""
    flow.model.float().precision = "float32"
    return dataclasses.replace(flow, pipeline=dataclasses.replace(flow.pipeline, precision="float32"))


def plain_network(backbone: nn.Module) -> nn.Module:
    """A copy of a backbone whose stored normalisation is torch's own, with the statistics before any inner step."""
    network = copy.deepcopy(backbone).cpu()
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, StoredNorm):
                plain = nn.BatchNorm2d(child.num_features, eps=child.eps)
                plain.weight, plain.bias = child.weight, child.bias
                plain.running_mean, plain.running_var = child.means[0].clone(), child.variances[0].clone()
                setattr(module, name, plain)
    return network.eval()


def _written(flow: FewShotFlow, network: nn.Module, folder: Path) -> dict[str, float]:
    """Write weights and programs, and return how far each program's features are from the run's, on random images."""
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in flow.model.state_dict().items()}
    (folder / WEIGHTS).write_bytes(save(tensors, {"format": "pt", "metaflowkit": __version__}))
    example, others = torch.rand(4, *flow.shape), torch.rand(7, *flow.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter about its own deprecations
        program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
        torch.export.save(program, folder / PROGRAM)
        programs: dict[str, Callable[[Tensor], Tensor]] = {PROGRAM: torch.export.load(folder / PROGRAM).module()}
        if not _missing_for_onnx():
            programs[ONNX] = _onnx(network, example, folder / ONNX)
    with torch.no_grad():
        expected = embed(flow.model, flow.inputs(others)[None])[0].cpu()
        differences = {name: float((run(others) - expected).abs().max() / expected.abs().max()) for name, run in programs.items()}
    for name, difference in differences.items():
        if not difference <= CLOSE:
            raise RunError(f"{name}: its features differ from the run's by {difference:.1e} of the largest; this network cannot be exported as it is")
    return differences


def _missing_for_onnx() -> list[str]:
    return [name for name in NEEDED_FOR_ONNX if importlib.util.find_spec(name) is None]


def _onnx(network: nn.Module, example: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    """Write the ONNX program, and return what runs it."""
    import onnxruntime

    torch.onnx.export(
        network, (example,), path, input_names=["images"], output_names=["features"], dynamo=True, verbose=False, external_data=False,
        dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
    )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


def card(run: Run, flow: FewShotFlow, classifier: Classifier, weights: str, licence: str, differences: dict[str, float]) -> dict[str, Any]:
    """What is to be known of an exported network, as JSON values."""
    pipeline, decoding = flow.pipeline, classifier.decoding()
    channels, *_, size = flow.shape
    in_sets = depend_on_their_set(flow.model, flow.inputs(torch.rand(4, *flow.shape)))
    return {
        "architecture": pipeline.model.backbone.plain(),
        "parameters": sum(p.numel() for p in flow.model.backbone.parameters()),
        "input": {
            "shape": ["n", channels, size, size],
            "values": "float32 in 0..1",
            "preprocessing": f"central square, resized to {size}x{size} (area filter where it is larger), {decoding.mode}{', inverted' * decoding.invert}, divided by 255",
        },
        "features": int(str(flow.model.backbone.features)),
        "metric": str(flow.model.head.metric),
        "normalisation": "statistics of the set that is given" if in_sets else "each image by itself",
        "training": {
            "dataset": pipeline.dataset.name if pipeline.dataset is not None else "",
            "tasks": pipeline.tasks.plain(),
            "objective": pipeline.objective.name,
            "inner_steps": pipeline.inner.steps,
            "outer_steps": pipeline.outer.steps,
            "weights": weights,
            "seed": pipeline.seed,
        },
        "test": _test_scores(run, pipeline),
        "data_licence": licence or "not given",
        "versions": {"metaflowkit": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "differences": differences,
    }


def _test_scores(run: Run, pipeline: Pipeline) -> dict[str, dict[str, str]]:
    """The test accuracies at the end of the run; none where it has not come to its end."""
    if not (run.folder / "evaluations.jsonl").is_file():
        return {}
    scores = read_final_scores(run.folder, pipeline.metric).scores
    return {setting: {weights: str(score) for weights, score in by_weights.items()} for setting, by_weights in scores.items()}


def _card_text(facts: dict[str, Any]) -> str:
    training, given = facts["training"], facts["input"]
    rows = [f"| {setting} | {scores.get('untrained', '')} | {scores.get('best', '')} |" for setting, scores in facts["test"].items()]
    table = ["| test | untrained | trained |", "|---|---|---|", *rows] if rows else ["The run was not measured on test classes."]
    sets = (
        ""
        if facts["normalisation"] == "each image by itself"
        else " Features of an image depend on the others of the batch: give labelled images and one new image together."
    )
    return "\n".join(
        [
            f"# An embedding of images: {facts['architecture']['name']}",
            "",
            f"{facts['parameters']:,} parameters; images {given['shape']} as {given['values']} become {facts['features']} features. Preprocessing: {given['preprocessing']}.",
            f"Normalisation: {facts['normalisation']}.{sets} Compare features by `{facts['metric']}`, such as with class means.",
            "",
            f"Trained with metaflowkit {facts['versions']['metaflowkit']} on the data set `{training['dataset']}` (tasks `{training['tasks']['name']}`, objective "
            f"`{training['objective']}`, {training['inner_steps']} inner and {training['outer_steps']} outer steps, seed {training['seed']}; `{training['weights']}` weights). "
            f"`{PIPELINE}` repeats it. Licence of the data: {facts['data_licence']}.",
            "",
            *table,
            "",
            f"`{PROGRAM}` is a program of torch.export, `{ONNX}` (where it is there) of ONNX, `{WEIGHTS}` the weights of backbone and head, `{FACTS}` this card as JSON. "
            f"`{EXAMPLE}` classifies images in plain PyTorch: `python {EXAMPLE} SUPPORT IMAGE...`, with a folder per class in SUPPORT.",
            "",
        ]
    )


def _example(flow: FewShotFlow, classifier: Classifier) -> str:
    decoding, metric = classifier.decoding(), str(flow.model.head.metric)
    scores = "-torch.cdist(embed(sys.argv[2:]), means)" if metric == "euclidean" else "embed(sys.argv[2:]) @ torch.nn.functional.normalize(means, dim=1).T"
    return EXAMPLE_TEXT.format(
        mode="L" if decoding.mode == "grey" else "RGB",
        size=decoding.size,
        inverted="ImageOps.invert(i)" if decoding.invert else "i",
        axes="pixels[:, None]" if decoding.mode == "grey" else "pixels.movedim(-1, 1)",
        scores=scores,
    )
