"""Metrics of each task, by the field's libraries."""

from sklearn.metrics import accuracy_score, f1_score


def classification_metrics(labels: list[str], predicted: list[str]) -> dict[str, float]:
    """Accuracy, and F1 averaged over the labels with equal weight."""
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }
