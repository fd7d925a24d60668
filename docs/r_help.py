"""The Sphinx directive r-help: the help pages of the R package in a folder, by R itself, in the order of its _pkgdown.yml.

Not pkgdown's own pages, which load scripts and styles from other hosts. Without R the page says where help is to be had.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

RENDER = """
folders <- commandArgs(TRUE)
files <- list.files(file.path(folders[[1]], "man"), "[.]Rd$", full.names = TRUE)
topics <- sub("[.]Rd$", "", basename(files))
links <- setNames(paste0("#", topics), topics)
for (i in seq_along(files)) {
    suppressWarnings(  # about links to R's own topics
        tools::Rd2HTML(files[[i]], file.path(folders[[2]], topics[[i]]), Links = links, Links2 = links, texmath = ""))
}
"""


def section(identifier, title, *children):
    return nodes.section("", nodes.title("", title), *children, ids=[identifier], names=[])


def help_page(page):
    """R's page as a section, in the theme's classes and without links to the help of other packages, which is not here."""
    _, title, body = re.split(r"<h2[^>]*>|</h2>", page.read_text("utf-8"), maxsplit=2)
    body = re.split(r"</main>|</div>\s*</body>", body)[0]
    for pattern, replacement in (
        (r'<a href="\.\./[^>]*>(.*?)</a>', r"\1"),
        (r"(</?)h3", r"\1h4"),
        (r"<table\b", '<table class="docutils"'),
        (r"<pre>(.*?)</pre>", r'<div class="highlight"><pre>\1</pre></div>'),
    ):
        body = re.sub(pattern, replacement, body, flags=re.DOTALL)
    return section(page.name, page.name, nodes.raw("", f"<p><strong>{title}</strong></p>{body}", format="html"))


class RHelp(SphinxDirective):
    required_arguments = 1

    def run(self):
        package = Path(self.env.relfn2path(self.arguments[0])[1])
        self.env.note_reread()
        if not shutil.which("Rscript"):
            return [nodes.paragraph("", 'This site was built without R. In R: help(package = "bcebridge").')]
        groups = yaml.safe_load((package / "_pkgdown.yml").read_text("utf-8"))["reference"]
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["Rscript", "-e", RENDER, package, folder], check=True)
            return [
                section(nodes.make_id(group["title"]), group["title"], *(help_page(Path(folder, t)) for t in group["contents"]))
                for group in groups
            ]


def setup(app):
    app.add_directive("r-help", RHelp)
    return {"parallel_read_safe": True}
