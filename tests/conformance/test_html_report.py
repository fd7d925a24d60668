"""The cross-check's page and plots: what they say, and how a browser shows them."""

import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from processes import run_cli

import bce_bridge
from bce_bridge import cli, core
from bce_bridge.conformance import compare, crosscheck, html, implementations, plots, report, sweep
from bce_bridge.conformance.cases import load_cases
from bce_bridge.conformance.crosscheck import Row

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "<script>document.title = 'taken'</script> & $x^{"


class Wrong(implementations.Core):
    """Fails in every way: a NaN, an error beyond every axis, too few numbers; and its name is markup."""

    name = SCRIPT

    def loss_and_grad(self, *operands_and_reduction):
        loss, gradient = super().loss_and_grad(*operands_and_reduction)
        return np.where(loss < 0.3, np.nan, np.where(loss > 2, 1e38, np.float64(loss))), gradient.ravel()[1:]


class Absent(implementations.Core):
    name = "Absent"

    def open(self):
        raise implementations.NotInstalled("get it from <nowhere>")


KINDS = (implementations.Core, implementations.Aten, Wrong, Absent)


@pytest.fixture(scope="module")
def failing():
    """(rows, sweeps, page) of a cross-check of some cases, every known deviation among them, with failures and an
    implementation that is not installed; and the sweep of a recording."""
    chosen = [case for i, case in enumerate(load_cases()) if i % 3 == 0 or "accumulation" in case.flags]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crosscheck, "load_cases", lambda: chosen)
        rows = crosscheck.crosscheck(implementations=KINDS)
    sweeps = sweep.sweep(implementations=(*KINDS, implementations.RecordedRTorch))
    return rows, sweeps, html.page(rows, sweeps, {"date": "2026-01-01", "hint": SCRIPT})


@pytest.fixture(scope="module")
def files(tmp_path_factory, failing):
    """Paths of two pages, one of them written by the command line, and of the plot it drew."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "failing.html").write_text(failing[2], encoding="utf-8")
    run_cli("crosscheck", "--html", "whole.html", "--plot", "plot.svg", cwd=folder)
    return {path.stem: path for path in folder.iterdir()}


class Document(HTMLParser):
    """tags, ids, references to other resources, and the text of a page, without its style."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.references, self.texts = [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                self.references.append(value)

    def handle_data(self, data):
        if self.tags[-1:] != ["style"]:
            self.texts.append(data)


@pytest.mark.parametrize("name", ["failing", "whole"])
def test_the_page_needs_nothing_else(files, name):
    """Catches a font, script or style from elsewhere, ids that two plots share, and a page too large to send."""
    text = files[name].read_text(encoding="utf-8")
    document = Document(text)
    assert all(reference.startswith(("#", "data:")) for reference in document.references)
    assert not {"script", "iframe", "object", "img"} & set(document.tags)
    assert "@import" not in text and set(re.findall(r"url\((.)", text)) <= {"#"}
    assert len(document.ids) == len(set(document.ids))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(document.ids)
    assert len(text.encode()) < 2_000_000
    assert document.tags.count("svg") > 4


def test_names_are_text(failing):
    """Catches markup or mathematical notation in a name, a version or a hint that the page obeys instead of showing."""
    document = Document(failing[2])
    assert "script" not in document.tags
    for text in (f"{SCRIPT} is", SCRIPT + ":", "get it from <nowhere>"):
        assert text.removesuffix(" is") in document.text


def test_the_page_says_what_the_terminal_says(failing):
    """Catches a row, a cell, a failure or a count that the page leaves out."""
    rows, _, page = failing
    text = Document(page).text
    for row in rows:
        for cell in report.cells(row):
            assert cell in text, (row.name, cell)
    wrong = next(row for row in rows if row.name == SCRIPT)
    assert len(wrong.failures) > html.FAILURES_SHOWN
    assert f"These are the first {html.FAILURES_SHOWN} of {len(wrong.failures)}" in text
    for failure in wrong.failures[: html.FAILURES_SHOWN]:
        got = "– {got} {exact}" if failure["element"] is None else "{element} {got} {exact}"
        assert f"{failure['case']} {failure['quantity']} {got.format(**failure)}" in text
    aten = next(row for row in rows if row.name == implementations.Aten.name)
    for name in compare.KNOWN_DEVIATIONS:
        assert aten.classes[name] and re.search(rf"{re.escape(aten.name)}: {aten.classes[name]:,}\b", text.replace("\xa0", " "))


def test_what_the_command_line_writes(files):
    """Catches a page without an implementation, the command, the instruction set or a version."""
    text = Document(files["whole"].read_text(encoding="utf-8")).text
    for kind in implementations.IMPLEMENTATIONS:
        assert kind.name in text
    assert "bce-bridge crosscheck --html whole.html" in text and str(files["whole"].parent) not in text
    assert f"instruction set {core.build_info()['isa']} bce_bridge {bce_bridge.__version__}" in text
    for package in ("numpy", "torch", "mpmath"):
        assert f"{package} {metadata.version(package)}" in text
    assert "r-package " in text and re.search(r"date 20\d\d-\d\d-\d\d \d\d:\d\d UTC", text)


def _row(name, failures=0, known=0, not_installed=""):
    failure = dict.fromkeys(("case", "quantity", "element", "got", "exact"), "")
    row = Row(name, not_installed=not_installed, failures=[failure] * failures)
    row.classes[compare.CANCELLATION] = known
    return row


@pytest.mark.parametrize(
    "rows, kind, sentence",
    [
        ([_row("a"), _row("b", known=3)], "pass", "No failures: 1 of 2 implementations conforms, 1 differs from the exact"),
        ([_row("a"), _row("c", not_installed="x")], "pass", "No failures: 1 of 1 implementation conforms."),
        ([_row("a"), _row("b", 2), _row("c", 1, 1)], "fail", "3 failures in 2 implementations: b, c."),
        ([_row("a", not_installed="x")], "none", "Nothing was compared"),
    ],
)
def test_verdict(rows, kind, sentence):
    """Catches a failure, or a comparison of nothing, that is called a success."""
    found = html.verdict(rows)
    assert found[0] == kind and found[1].startswith(sentence)
    assert f'class="verdict {kind}"' in html.page(rows, [], {})


def test_deviations_are_those_of_the_docs():
    """Catches a reason that is written differently in docs/deviations.md, and a deviation without a reason."""
    lines = re.findall(r"^\| `([\w-]+)` \| (.+) \| (.+) \| (.+) \|$", (ROOT / "docs/deviations.md").read_text(), re.MULTILINE)
    documented = {name: dict(zip(("libtorch", "bce_bridge", "why"), texts)) for name, *texts in lines}
    assert html.deviations() == {name: documented[name] for name in compare.KNOWN_DEVIATIONS}


# Catches: an error measured in the wrong unit or with the wrong sign, and libtorch's tail or the core's bound not being shown.
def test_errors_of_a_sweep(failing):
    found = {(one.name, one.dtype): one.errors for one in failing[1]}
    ours, theirs = found[implementations.Core.name, "float32"], found[implementations.Aten.name, "float32"]
    assert all(np.max(errors) <= 0.5 for _, errors in ours.values())
    x, errors = theirs["loss", 0]
    assert len(x) == sweep.POINTS + 2 and len(set(x)) == len(x) and 0 in x
    # libtorch's loss is 0 here, so that its error is the loss itself, a normal number.
    tail = (x < -17) & (x > -80)
    exact = np.log1p(np.exp(x[tail]))
    np.testing.assert_allclose(errors[tail], exact / np.spacing(exact.astype(np.float32)), rtol=1e-6)
    nans = {("loss", 0): {-np.inf}, ("loss", 1): {-np.inf, np.inf}}
    for kind, label in theirs:
        x, errors = theirs[kind, label]
        assert set(x[np.isinf(errors)]) == nans.get((kind, label), set())


# Catches: the one answer that PyKEEN's loss can give, a sum, taken for that of each element.
def test_an_implementation_that_only_adds_up():
    class Summing(implementations.Core):
        reductions = ("sum",)

        def loss_and_grad(self, *operands):
            assert operands[-1] in self.reductions
            return super().loss_and_grad(*operands)

    alone, together = (sweep.sweep(implementations=(kind,))[0] for kind in (Summing, implementations.Core))
    for key, (_, errors) in together.errors.items():
        np.testing.assert_array_equal(alone.errors[key][1], errors)


def test_every_answer_is_drawn(failing):
    """Catches points beyond an axis or lost in making the SVG smaller."""
    for one in failing[1]:
        drawn = plots.small(one, "p")
        errors = np.concatenate([errors for _, errors in one.errors.values()])
        assert drawn.count("h0") == np.isfinite(errors).sum()
        for panel in drawn.split('id="p-axes_')[1:]:
            frame = np.array(re.findall(r"[ML] (\S+) (\S+)", panel)[:4], float)
            points = np.array(re.findall(r"M(\S+) (\S+)h0", panel), float).reshape(-1, 2)
            assert np.all(points >= frame.min(axis=0)) and np.all(points <= frame.max(axis=0))


def test_plots_are_the_same_twice(failing, tmp_path):
    """Catches dates and random ids in what is committed as docs/accuracy.svg."""
    for name in ("a.svg", "b.svg"):
        plots.write(failing[1], tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    for text in ((tmp_path / "a.svg").read_text(encoding="utf-8"), (ROOT / "docs/accuracy.svg").read_text(encoding="utf-8")):
        assert implementations.Core.name in text and implementations.Aten.name in text and "prefers-color-scheme" in text
        assert "#010101" not in text and SCRIPT not in text


# Catches: minutes of computing before a refusal, an option that is not heeded, and a traceback.
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--html", "no/such/folder/report.html"], "no/such/folder/report.html"),
        (["--html", ""], "No such file"),
        (["--plot", "plot.png"], "plot must be an .svg file, got 'plot.png'"),
        (["--html", "report.html", "--dataset", "infert"], "--html must stand without --data and --dataset"),
        (["--plot", "plot.svg", "--data", "data.csv"], "--plot must stand without --data and --dataset"),
    ],
)
def test_refusals(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(crosscheck, "crosscheck", lambda *_, **__: pytest.fail("computed first"))
    assert cli.main(["crosscheck", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    programs = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    works = [program for program in programs if subprocess.run([program, "--version"], capture_output=True).returncode == 0]
    assert works, "the tests marked chromium want Chromium on the PATH"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=works[0])
        yield browser
        browser.close()


# For each piece of text its contrast (WCAG 2) with the background that it stands on.
CONTRASTS = """() => {
  const parse = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = colour => {
    const [r, g, b] = parse(colour).map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (parse(colour)[3] !== 0) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), result = [];
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.data.trim()) continue;
    const style = getComputedStyle(element);
    const pair = [luminance(element instanceof SVGElement ? style.fill : style.color), luminance(background(element))];
    result.push([node.data, (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), pair[1]]);
  }
  return result;
}"""


def _shares(png, colours):
    """The share of pixels of each colour, given as #rrggbb."""
    pixels = (imread(io.BytesIO(png))[..., :3] * 255).round().astype(int)
    return [np.mean(np.all(pixels == [int(colour[i : i + 2], 16) for i in (1, 3, 5)], axis=-1)) for colour in colours]


@pytest.mark.chromium
@pytest.mark.parametrize(
    "name, width, height, scheme",
    [
        ("failing", 390, 844, "dark"),
        ("failing", 1280, 800, "light"),
        *(("whole", *size, scheme) for size in ((390, 844), (1280, 800)) for scheme in ("light", "dark")),
    ],
)
def test_in_a_browser(browser, files, name, width, height, scheme):
    """Catches a blank page, a verdict below the first screen, sideways scrolling, unreadable text, colours that do not follow
    the scheme, requests, errors, scripts in names, and plots in which libtorch's tail cannot be seen or ours is not flat."""
    colours = {"light": plots.LIGHT, "dark": plots.DARK}[scheme]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=2, offline=True
    )
    page = context.new_page()
    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(files[name].as_uri())
    assert [url for url in requests if not url.startswith("data:")] == [files[name].as_uri()] and complaints == []
    assert page.title().startswith("Cross-check: ")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator("#verdict").bounding_box()
    assert box["y"] >= 0 and box["y"] + box["height"] <= height and box["width"] > 0.8 * min(width, 1000)

    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 200
    assert min(contrasts, key=lambda text: text[1])[1] >= 4.5, min(contrasts, key=lambda text: text[1])
    assert all((background > 0.8) == (scheme == "light") and not 0.05 < background < 0.8 for *_, background in contrasts)
    paper, ink = _shares(page.screenshot(), [colours["paper"], colours["ink"]])
    assert 0.4 < paper < 0.99 and ink > 0.001

    for figure, tail in ((implementations.Core.name, False), (implementations.Aten.name, True)):
        drawn = page.get_by_role("img", name=f"{figure}, float32").screenshot()
        within, beyond = _shares(drawn, [colours["within"], colours["beyond"]])
        assert within > 0.005 and (beyond > 0.001) == tail and (tail or beyond == 0)
    context.close()
