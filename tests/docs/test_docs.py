"""The Markdown pages: every block of code runs and prints what it shows, links lead somewhere, nothing public is left out.

A page's blocks of one language are one program, in the order of the page, and its programs run in one folder: first Python,
then R, C and the shell's. Lines that begin with #> (in C //>) are what the program prints. A block whose language is followed
by the word torch needs R torch, and runs where that is installed.
"""

import ast
import functools
import importlib
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

from bce_bridge import cli, r
from bce_bridge.conformance.cases import load_cases
from bce_bridge.conformance.implementations import IMPLEMENTATIONS, Core

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    path.relative_to(ROOT).as_posix()
    for folder in ("", "docs", "vectors", "examples", "r_compat")
    for path in sorted((ROOT / folder).glob("*.md"))
]
PROGRAMS = ("python", "r", "c")
SHELL = ("sh", "console")
SHOWN = ("", "text", "json", "mermaid", "julia")
# Run by tests of their own, which give them what they need.
ELSEWHERE = {("docs/conformance.md", "c"), ("docs/conformance.md", "r")}
# What is over in some seconds; other commands of bce-bridge are parsed.
QUICK = re.compile(r"bce-bridge crosscheck --data [a-z]+\.csv")
FOLDERS = ("bce_bridge", "c_src", "docs", "examples", "r_compat", "tests", "tools", "vectors")

Block = namedtuple("Block", "language needs_r_torch first_line lines")


@functools.cache
def tokens(page):
    return MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text("utf-8"))


def inline_tokens(page):
    return [child for token in tokens(page) for child in token.children or ()]


def blocks(page):
    """The fenced blocks, with the number of their first line of code."""
    for token in tokens(page):
        if token.type == "fence":
            language, *needs = token.info.split() or [""]
            assert needs in ([], ["torch"]), f"{page}: {token.info}"
            yield Block(language, bool(needs), token.map[0] + 1, token.content.splitlines())


def program(page, language, with_r_torch):
    """The lines of the page with all but this program's blanked, so that messages have the page's line numbers."""
    lines = [""] * len((ROOT / page).read_text("utf-8").splitlines())
    for block in blocks(page):
        if block.language == language and (with_r_torch or not block.needs_r_torch):
            lines[block.first_line : block.first_line + len(block.lines)] = block.lines
    return lines


def run(page, command, folder):
    library = str(r.library_path()) if r.library_path().is_dir() else ""
    added = {"PATH": str(Path(sys.executable).parent), "R_LIBS": library}
    environment = {name: os.pathsep.join(filter(None, (first, os.environ.get(name)))) for name, first in added.items()}
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{page}: {shlex.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def run_program(page, language, lines, folder):
    """Run it, and compare what it prints with what it shows."""
    path = folder / f"{Path(page).stem}.{language}"
    if language == "r":
        lines = ["options(warn = 2)", *lines[1:]]  # in place of the page's title
    path.write_text("\n".join(lines) + "\n", "utf-8")
    binary, core = folder / "program", ROOT / "c_src"
    if language == "c":
        options = ["-Wall", "-Werror", f"-I{core}", "-lm", "-pthread", "-o", binary]
        run(page, ["cc", path, *core.glob("*.c"), *options], folder)
    command = {"python": [sys.executable, "-W", "error", path], "r": ["Rscript", path], "c": [binary]}[language]
    shown = [match[1] for line in lines if (match := re.match(r"\s*(?:#|//)>(?: (.*))?$", line))]
    assert run(page, command, folder).splitlines() == shown, page


class Parsed(Exception):
    """The command line is one that the parser takes."""


def parse_bce_bridge(arguments, monkeypatch):
    parse = cli.argparse.ArgumentParser.parse_args

    def parse_only(parser, given):
        parse(parser, given)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(cli.argparse.ArgumentParser, "parse_args", parse_only)
        with pytest.raises(Parsed):
            cli.main(arguments)


def try_command(page, command, folder, monkeypatch):
    """Run a command that is quick. Of others, which tests and make targets run, see that there is what they name."""
    words = shlex.split(command, comments=True)
    match words:
        case ["make", *targets]:
            run(page, ["make", "--dry-run", "--directory", str(ROOT), *targets], folder)
        case ["bce-bridge", *arguments]:
            if QUICK.fullmatch(command):
                run(page, words, folder)
            else:
                parse_bce_bridge(arguments, monkeypatch)
        case ["pip", "install", *rest]:
            given = set(metadata.metadata("bce-bridge").get_all("Provides-Extra"))
            for wanted in re.findall(r"\[(.*?)\]", command):
                assert set(wanted.split(",")) <= given, command
            assert rest and all((ROOT / word).is_file() for word in rest if word.endswith(".txt")), command
        case ["python", script]:
            assert (ROOT / script).is_file(), command
        case ["R", "CMD", "INSTALL", package]:
            assert (ROOT / package / "DESCRIPTION").is_file(), command
        case ["apt-get", "install", *_]:
            pass  # run by hand in a fresh Debian: docs/support.md
        case _:
            pytest.fail(f"{page}: what is {command}?")


def commands(block):
    """A command a line, or, in a console, each line after a $."""
    lines = "\n".join(block.lines).replace("\\\n", " ").splitlines()
    if block.language == "console":
        return [line[2:] for line in lines if line.startswith("$ ")]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def run_page(page, with_r_torch, folder, monkeypatch):
    languages = {block.language for block in blocks(page) if (page, block.language) not in ELSEWHERE}
    for language in [name for name in PROGRAMS if name in languages]:
        run_program(page, language, program(page, language, with_r_torch), folder)
    for block in blocks(page):
        if block.language in SHELL and (with_r_torch or not block.needs_r_torch):
            for command in commands(block):
                try_command(page, command, folder, monkeypatch)


def pages_with_code():
    for page in PAGES:
        found = [block for block in blocks(page) if block.language in PROGRAMS + SHELL]
        if found:
            code = "\n".join(line for block in found for line in block.lines)
            needs_r = any(block.language == "r" for block in found) or "from bce_bridge import r\n" in code
            yield pytest.param(page, marks=[pytest.mark.r] if needs_r else [])


# Catches: code that has gone stale, output that is another, a command, option, target or extra that is no more.
@pytest.mark.parametrize("page", [*pages_with_code()])
def test_code_runs_as_shown(page, tmp_path, monkeypatch):
    run_page(page, False, tmp_path, monkeypatch)


@pytest.mark.r
@pytest.mark.parametrize("page", [page for page in PAGES if any(block.needs_r_torch for block in blocks(page))])
def test_code_with_r_torch_runs_as_shown(page, tmp_path, monkeypatch):
    try:
        r.version("r-torch")
    except r.NotAvailable as hint:
        pytest.skip(f"R torch not installed: {hint}")
    run_page(page, True, tmp_path, monkeypatch)


# Catches: a block that no test would run because its language is misspelt, or because it is indented instead of fenced; and
# a page whose code is thought to be run elsewhere and has none.
def test_every_block_is_run_or_known():
    found = {(page, block.language) for page in PAGES for block in blocks(page)}
    assert {language for _, language in found} <= {*PROGRAMS, *SHELL, *SHOWN}
    assert ELSEWHERE <= found
    for page in PAGES:
        for token in tokens(page):
            if token.type == "code_block":
                program = r"\s*(\$ |\S*(make|bce-bridge|pip|python|R|Rscript|import|from) )"
                assert not re.match(program, token.content), f"{page}: {token.content}"


def anchors(page):
    """As GitHub makes them of the headings."""
    seen, listed = {}, tokens(page)
    for heading, text in itertools.pairwise(listed):
        if heading.type == "heading_open":
            plain = "".join(child.content for child in text.children)
            slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
            n = seen[slug] = seen.get(slug, -1) + 1
            yield slug if n == 0 else f"{slug}-{n}"


def links(page):
    """(file or folder, anchor) of the links and pictures that lead into the repository."""
    for token in inline_tokens(page):
        url = urlsplit(token.attrs.get("href" if token.type == "link_open" else "src", ""))
        if token.type in ("link_open", "image") and not url.scheme:
            yield (ROOT / page).parent.joinpath(unquote(url.path)) if url.path else ROOT / page, url.fragment


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for path, anchor in links(page):
        assert path.exists() and path.resolve().is_relative_to(ROOT), f"{page}: {path}"
        if anchor:
            assert anchor in anchors(path.resolve().relative_to(ROOT).as_posix()), f"{page}: {path}#{anchor}"


# Catches: a file or folder that was renamed, moved or removed.
@pytest.mark.parametrize("page", PAGES)
def test_paths_in_the_text_exist(page):
    for token in inline_tokens(page):
        if token.type == "code_inline" and re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./*-]*", token.content):
            assert any(ROOT.glob(token.content.rstrip("/"))), f"{page}: {token.content}"


# Catches: a page that nobody finds.
def test_every_page_can_be_reached_from_the_readme():
    reached, to_read = set(), ["README.md"]
    while to_read:
        page = to_read.pop()
        if page not in reached and page in PAGES:
            reached.add(page)
            paths = [path / "README.md" if path.is_dir() else path for path, _ in links(page)]
            to_read += [path.resolve().relative_to(ROOT).as_posix() for path in paths]
    assert reached == set(PAGES)


# Catches: a function that was added and never written about.
def test_every_public_name_is_written_about():
    modules = ["bce_bridge", *(f"bce_bridge.{name}" for name in ("core", "r", "composer", "lucid", "pykeen"))]
    names = {name for module in modules for name in importlib.import_module(module).__all__}
    names |= set(re.findall(r"^export\((.*)\)$", (ROOT / "r_compat/NAMESPACE").read_text(), re.MULTILINE))
    code = [token.content for page in PAGES for token in inline_tokens(page) if token.type == "code_inline"]
    code += [line for page in PAGES for block in blocks(page) for line in block.lines]
    written = set(re.findall(r"\w+", "\n".join(code)))
    assert names <= written, names - written


def narrow(line, heading):
    """What a line of the cross-check's table has in its columns of names, errors and verdicts, in 100 characters."""
    version, errors, verdict = heading.index("version"), heading.index("float32"), heading.index("verdict")
    cut = (line[:version] + line[errors : heading.rindex("float64") + 7] + line[verdict - 3 :]).rstrip()
    if len(cut) <= 100:
        return cut
    return cut[:99] if "─" in cut else cut[:96].rpartition(",")[0] + ", ..."


# Catches: an implementation or a case that was added, and not the new table put into the page.
def test_readme_shows_the_cross_check():
    first, table = [block.lines for block in blocks("README.md") if block.language == "text"]
    names = [kind.name for kind in IMPLEMENTATIONS]
    assert [name for line in table for name in names if line.startswith(f"  {name}  ")] == names
    cases = sum(map(Core().can_answer, load_cases()))
    assert re.search(rf"C core \(NumPy\) .* {cases} ", "\n".join(table)) and table[-1] == "0 failures."
    rows = table[1 : next(i for i, line in enumerate(table) if line.startswith("Errors are"))]
    assert first == [narrow(line, table[2]) for line in rows if not line.endswith("not installed")]


# Catches: a page that the site's navigation lacks, and a module with a stub, so a public one, that its reference lacks.
def test_site_holds_every_page_and_module():
    entries = re.findall(r"<(.+)>$", (ROOT / "docs/index.rst").read_text("utf-8"), re.MULTILINE)
    pages = {f"{entry[1:] if entry[0] == '/' else f'docs/{entry}'}.md" for entry in entries if not entry.startswith("api/")}
    assert pages == set(PAGES)
    stubs = [path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "bce_bridge").rglob("*.pyi")]
    public = {stub.removesuffix("/__init__").replace("/", ".") for stub in stubs}
    public -= {
        f"bce_bridge.{name}" for name in ("torch", "torch.functional", "torch.modules", "versions")
    }  # in bce_bridge, too
    reference = (ROOT / "docs/api/python.rst").read_text("utf-8")
    assert set(re.findall(r"^\.\. automodule:: (\S+)$", reference, re.MULTILINE)) == public


def imports(path, folder):
    """The modules of a package, and of this folder of it, that a file in there imports when it is itself imported."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "bce_bridge":
            inner = node.module.split(".")[1:]
            if folder and inner[:1] == [folder]:
                inner = inner[1:]
            yield from inner[:1] or [alias.name for alias in node.names]


# Catches: an import against the arrows of the picture, and a module that is not in it.
def test_imports_follow_the_picture():
    (picture,) = ["\n".join(block.lines) for block in blocks("docs/architecture.md") if block.language == "mermaid"]
    arrows = set(re.findall(r"(\w+)(?:\[\"[^\"]*\"\])? --> (\w+)", picture))

    def below(module):
        return {module}.union(*(below(target) for source, target in arrows if source == module))

    package = ROOT / "bce_bridge"
    drawn = {name for arrow in arrows for name in arrow}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).parts
        folder = "torch" if parts[0] == "torch" else ""  # the picture shows torch/ from within
        name = parts[bool(folder)].removesuffix(".py")
        if name not in ("__init__", "_build", "vectors", "versions"):
            assert name in drawn, name
            assert set(imports(path, folder)) & drawn <= below(name) | below("torch"), path
