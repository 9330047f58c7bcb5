"""The HTML pages in a real browser: nothing fails, nothing is fetched or injected, and they can be read at the width of a phone and by those who do not see them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from metaflowkit.cli import main
from tests.reporting.hostile import SCRIPT, hostile_run
from tests.small import SMALL

pytestmark = [pytest.mark.browser, pytest.mark.pages]
FINDINGS = """
<script>{axe}</script>
<script>
const result = {{errors: window.errors}};
addEventListener("load", async () => {{
  const found = await axe.run();
  result.faults = found.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html.slice(0, 200))]);
  result.images = [...document.images].map(image => [image.alt, image.complete && image.naturalWidth > 0]);
  result.fetched = performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length;
  result.overflow = document.documentElement.scrollWidth - innerWidth;
  result.injected = window.injected === true;
  const element = document.createElement("script");
  element.type = "application/json"; element.id = "found"; element.textContent = JSON.stringify(result).replaceAll("<", "\\\\u003c");
  document.body.append(element);
}});
</script>
"""


def visit(page: Path, width: int) -> dict:
    """What the browser finds on a page."""
    import axe_playwright_python

    browser = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    assert browser, "no Chromium is installed; on Debian: apt install chromium"
    axe = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
    text = page.read_text().replace("<head>", "<head><script>window.errors = []; addEventListener('error', e => errors.push(String(e.message)))</script>", 1)
    copy = page.with_name(f"visited-{page.name}")
    copy.write_text(text.replace("</body>", FINDINGS.format(axe=axe.replace("</script", "<\\/script")) + "</body>", 1))
    arguments = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}", f"--window-size={width},900"]
    done = subprocess.run([*arguments, "--virtual-time-budget=60000", "--dump-dom", copy.as_uri()], capture_output=True, text=True, timeout=180, check=True)
    match = re.search(r'<script type="application/json" id="found">(.*?)</script>', done.stdout, re.DOTALL)
    assert match, done.stderr[-2000:]
    return json.loads(match[1])


def mfk(*arguments: str) -> None:
    result = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """One page of each sort, about data and runs with hostile names."""
    folder = tmp_path_factory.mktemp("pages")
    run = hostile_run(folder)
    (folder / "small.yaml").write_text(SMALL)
    other = folder / "other"
    mfk("run", str(folder / "small.yaml"), "--run-dir", str(other), "--quiet")
    mfk("report", str(run), str(other), "-o", str(folder / "both.html"))
    mfk("compare", str(folder / "small.yaml"), "--vary", "inner.steps=0", "--vary", "inner.steps=1", "--seeds", "2", "-o", str(folder / "compared"))
    return {"a run": run / "report.html", "two runs": folder / "both.html", "a comparison": folder / "compared" / "comparison.html"}


@pytest.mark.parametrize("width", [420, 1200])
@pytest.mark.parametrize("sort", ["a run", "two runs", "a comparison"])
def test_pages(pages, sort, width) -> None:
    page_facts = visit(pages[sort], width)
    assert page_facts["errors"] == []
    assert page_facts["images"]
    assert all(alt and loaded for alt, loaded in page_facts["images"]), page_facts["images"]
    assert page_facts["fetched"] == 0
    assert not page_facts["injected"]
    assert page_facts["overflow"] <= 0
    assert [fault for fault in page_facts["faults"] if fault[0] in ("serious", "critical")] == []


def test_the_test_sees_faults(tmp_path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        f"<!doctype html><html><head><title>x</title></head><body style='width: 3000px'><img src='data:image/png;base64,AAAA'>{SCRIPT}<script>nowhere()</script></body></html>"
    )
    page_facts = visit(page, 420)
    assert page_facts["errors"]
    assert page_facts["injected"]
    assert page_facts["overflow"] > 0
    assert page_facts["images"] == [["", False]]
    assert {"image-alt", "html-has-lang"} <= {fault[1] for fault in page_facts["faults"] if fault[0] in ("serious", "critical")}
