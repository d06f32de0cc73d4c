"""``model_card.md``: what a grown network is, how well it does and where its limits are, in a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEANING = {
    "mse": "mean square error",
    "rmse": "its root, in the target's unit",
    "r2": "1 - error / error of the training mean",
    "accuracy": "share of rows classified correctly",
    "log_loss": "mean negative log-likelihood",
    "logistic_loss": "mean logistic loss",
    "largest_class": "accuracy of always naming the largest class",
}


def card(metrics: Mapping[str, Any]) -> str:
    """The page for the contents of ``metrics.json``."""
    data, parts = metrics["data"], metrics["metrics"]
    names = list(next(iter(parts.values())))
    rows = ", ".join(f"{count} {part}" for part, count in metrics["rows"].items())
    widths = " and ".join(str(k) for k in metrics["hidden_widths"])
    lines = [
        f"# Network for `{data['target']}`",
        "",
        f"Grown by Neuron Pursuit (gfsim {metrics['versions']['gfsim']}, mode {metrics['mode']}) on `{data['path']}`.",
        "",
        f"- Task: {metrics['task']}" + (f" into {len(metrics['classes'])} classes" if metrics["classes"] else ""),
        f"- Inputs: {len(data['features'])} columns: {', '.join(data['features'])}",
        *([f"- Left out: {', '.join(data['dropped'])}"] if data["dropped"] else []),
        f"- Rows: {rows}",
        f"- Hidden neurons: {widths} (one number a layer), {metrics['settings']['activation']}"
        + (f"; the mean of {metrics['networks']} grown networks" if metrics.get("networks", 1) > 1 else ""),
        f"- Growth ended: {metrics['stop']['message']}",
        "",
        "| rows | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
        *(
            f"| {part} | " + " | ".join(f"{values[name]:.4g}" for name in names) + " |"
            for part, values in parts.items()
        ),
        "",
        *(f"- {name}: {MEANING[name]}" for name in names if name in MEANING),
        "",
        "## Limits",
        "",
        "- Only the test rows say how well new rows will do, and only rows drawn like these. Training and validation",
        "  rows were used to grow, to stop and to choose.",
        "- Outside the range of the training rows the network continues as a power of the inputs, without warning.",
        *(
            [f"- Constant on the training rows, so never learned from: {', '.join(metrics['constant_columns'])}"]
            if metrics.get("constant_columns")
            else []
        ),
        "",
        "New rows: `gfsim predict DIR NEW.csv`, DIR being this directory.",
    ]
    return "\n".join(lines) + "\n"
