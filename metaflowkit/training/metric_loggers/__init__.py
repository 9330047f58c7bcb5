"""Receivers of metrics besides the run's own ``metrics.jsonl``. The import lines below are the list of what exists."""

from metaflowkit.training.metric_loggers.csv_table import CSV
from metaflowkit.training.metric_loggers.mlflow_store import MLflow
from metaflowkit.training.metric_loggers.tensorboard import TensorBoard
from metaflowkit.training.metric_loggers.weights_and_biases import WeightsAndBiases

__all__ = ["CSV", "MLflow", "TensorBoard", "WeightsAndBiases"]
