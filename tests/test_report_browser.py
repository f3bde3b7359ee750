"""The report in a browser: nothing is wider than the screen, nothing is said on the console. Skips without Chromium."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_run import earlier, make_run, measured, results

from langadapt.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium")

PROBE = """<script>
addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(one => {
    const place = one.getBoundingClientRect();
    return place.width > 0 && place.right > innerWidth + 1 && !one.parentElement.closest(".scroll");
  });
  const hidden = [...document.querySelectorAll(".bars .fill, .stack .fill")].filter(
    one => one.offsetParent !== null && one.getBoundingClientRect().width < 1.5);
  document.title = "PROBE" + JSON.stringify({
    width: innerWidth, page: document.documentElement.scrollWidth, hidden: hidden.length,
    wide: wide.slice(0, 5).map(one => one.outerHTML.slice(0, 120)),
    shown: [...document.querySelectorAll(".over")].filter(one => one.offsetParent !== null).length,
    charts: document.querySelectorAll("figure svg").length,
  });
});
</script></body>"""


def looked_at(page: Path, width: int, dark: bool) -> tuple[dict[str, object], list[str]]:
    """What a script finds in the page, and what the console says."""
    copy = page.with_name(f"probe-{width}.html")
    # Narrower than 500 pixels headless Chromium opens no window: the page stands in a frame of that width.
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    frame = page.with_name(f"frame-{width}.html")
    frame.write_text(
        f'<!doctype html><title></title><iframe src="{copy.name}" width="{width}" height="900" style="border:0">'
        "</iframe>"
        "<script>setInterval(() => { document.title = frames[0].document.title || document.title }, 20)</script>",
        encoding="utf-8",
    )
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += ["--allow-file-access-from-files", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    command += ["--virtual-time-budget=3000", "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    found = re.search(r"<title>PROBE(.*?)</title>", done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")), said


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
@pytest.mark.parametrize("kind", ["whole", "earlier", "long names"])
def test_nothing_overflows_and_the_console_is_silent(tmp_path: Path, kind: str, width: int, dark: bool) -> None:
    found = earlier(results()) if kind == "earlier" else results()
    if kind == "long names":
        found["languages"]["target"] = "Donaudampfschifffahrtsgesellschaftskapitänsdeutsch" * 2
        for report in found["fertility"].values():
            for texts in report["tokenizers"].values():
                texts[found["languages"]["target"]] = texts.pop("German")
        found["rows"][2]["samples"] = {"target": ["x" * 200]}
        found["cost"]["seconds"] |= {f"a-stage-with-a-very-long-name-{number}": 0.2 + number for number in range(14)}
        found = measured(found)
    seen, said = looked_at(write_report(make_run(tmp_path, found)), width, dark)
    assert said == []
    assert seen["width"] == width and seen["page"] <= width, seen  # type: ignore[operator]
    assert seen["wide"] == [] and seen["hidden"] == 0, seen
    # Of the curves over tokens, bytes and seconds one is shown at a time.
    assert int(seen["charts"]) - int(seen["shown"]) == 4, seen  # type: ignore[call-overload]
