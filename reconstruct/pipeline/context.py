"""What all stages of a run share: the output folder, the photos, the device, where work is done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reconstruct import colmap
from reconstruct.benchmark.comparison import BenchmarkConfig, load_benchmark
from reconstruct.datasets import Dataset
from reconstruct.datasets.loading import load_dataset
from reconstruct.errors import ConfigError
from reconstruct.executor import Executor, InProcess
from reconstruct.localization.table import LocalizationTable
from reconstruct.pipeline.config import AnyConfig, PipelineConfig
from reconstruct.progress import Reporter
from reconstruct.stages import Context, Summary
from reconstruct.torch_device import check_device
from reconstruct.training.matcher_settings import MatcherTrainingConfig
from reconstruct.training.settings import TrainingConfig
from reconstruct.workspace import Workspace


def open_context(
    config: AnyConfig,
    output: Path | str | None,
    device: str,
    reporter: Reporter,
    executor: Executor | None = None,
) -> Context:
    """What the stages of a run share.

    Args:
        config: The pipeline file.
        output: Output folder; None: the one that the file names, or ``output/NAME``.
        device: auto, cpu, cuda, cuda:N or mps.
        reporter: Where progress is shown.
        executor: Where chunks of keyed stages run; None: in this process.

    Raises:
        UsageError: A folder or the device is missing, or queries to localize.
        DataError: The data set has no image.
    """
    workspace = Workspace(output or config.output or Path("output") / config.name)
    check_device(device)
    if isinstance(config, BenchmarkConfig):
        dataset: Dataset = load_benchmark(config).dataset
    elif isinstance(config, TrainingConfig | MatcherTrainingConfig):
        # Drawn from, not gone through photo by photo.
        dataset = Dataset(root=Path(config.dataset.images), names=())
    else:
        dataset = load_dataset(config.dataset, workspace.dataset)
    if isinstance(config, PipelineConfig | LocalizationTable):
        if config.map is not None and config.map.reference is not None:
            poses = colmap.model_folder(Path(config.map.reference))
            # Its intrinsics belong to its poses; cameras given for the photos come first.
            dataset = replace(dataset, poses=poses, cameras=dataset.cameras or poses)
        if config.localize is not None and not dataset.queries:
            raise ConfigError("localize: needs dataset.queries, the photos to localize")
    summary = Summary(skipped=dict(dataset.skipped))
    return Context(
        workspace=workspace,
        dataset=dataset,
        reporter=reporter,
        summary=summary,
        device=device,
        seed=config.seed,
        executor=executor or InProcess(),
    )
