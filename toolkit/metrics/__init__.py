"""How good samples are: `figures.py` has one number per function, `report.py` what they mean.

rows = metrics.evaluate(samples, labels, data.load("digits"))
print(metrics.table(rows, len(samples)))
"""

from .figures import (
    classifier_accuracy,
    energy_distance,
    frechet_pixels,
    nearest_neighbour_ratio,
    per_class_gaussian,
    precision,
    recall,
    sliced_wasserstein,
    train_on_samples_accuracy,
)
from .report import Row, evaluate, evaluate_arrays, evaluate_digits, table

__all__ = [
    "Row",
    "classifier_accuracy",
    "energy_distance",
    "evaluate",
    "evaluate_arrays",
    "evaluate_digits",
    "frechet_pixels",
    "nearest_neighbour_ratio",
    "per_class_gaussian",
    "precision",
    "recall",
    "sliced_wasserstein",
    "table",
    "train_on_samples_accuracy",
]
