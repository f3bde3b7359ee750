"""What ``adapt`` returns: the results as plain values, with the verdict and the places of what was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import escape

from langadapt.report.results import results_of
from langadapt.report.summary import summarize
from langadapt.report.verdict import Verdict, verdict


class Outcome(dict[str, Any]):
    """``results.json`` as a mapping, and what follows from it. Prints as the verdict.

    Args:
        results: as ``results.json`` holds them.
        folder: of the run.
    """

    def __init__(self, results: dict[str, Any], folder: str | Path) -> None:
        super().__init__(results)
        self.folder = Path(folder)

    @property
    def verdict(self) -> Verdict:
        """Yes, no or undecided, with reasons."""
        results = results_of(self)
        return verdict(summarize(results), results)

    @property
    def model_path(self) -> Path:
        """The run's own model, a folder in Hugging Face form."""
        return self.folder / Path(self["training"][self["method"]]["log"]).parent / "final"

    @property
    def report_path(self) -> Path:
        """The page."""
        return self.folder / "report" / "index.html"

    def __repr__(self) -> str:
        return f"{self.verdict.line}\nmodel: {self.model_path}\nreport: {self.report_path}"

    def _repr_html_(self) -> str:
        """For notebooks."""
        found = self.verdict
        items = "".join(f"<li>{escape(remark)}</li>" for remark in found.remarks)
        return f"<p><b>{escape(found.line)}</b></p><ul>{items}</ul><p><code>{escape(self.model_path)}</code></p>"
