"""Sphinx's configuration of the site that make docs builds.

The source folder is the repository's root, so that a link between pages is the same one here as on GitHub. If a link leads to
a file that is no page, MyST copies that file into the site.
"""

import importlib
import inspect
import re
import sys
from pathlib import Path

from sphinx.util import logging

import bce_bridge

sys.path.insert(0, str(Path(__file__).parent))

project = "bce_bridge"
version = release = bce_bridge.__version__
copyright = "the bce_bridge authors"

root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "vectors/*.md", "r_compat/*.md"]
exclude_patterns = [".*", "build", "dist"]  # a virtual environment is long to walk through
extensions = ["c_header", "mermaid", "myst_parser", "numpydoc", "r_help", "sphinx.ext.autodoc", "sphinx_copybutton"]

nitpicky = True
# Types of other projects, whose inventories would have to be fetched.
nitpick_ignore_regex = [("c:identifier", "u?int[0-9]+_t|size_t"), ("py:.*", r"(collections|numpy|pykeen|torch)\..*")]

myst_heading_anchors = 4  # as GitHub makes them
myst_fence_as_directive = ["mermaid"]
autodoc_default_options = {"members": True, "undoc-members": True, "member-order": "bysource"}
numpydoc_show_class_members = False  # autodoc lists them
default_role = "autolink"  # `name` is a link if it is one of ours, else an argument

html_theme = "furo"
html_title = f"bce_bridge {release}"
html_show_sourcelink = False
html_static_path = ["static"]
html_css_files = ["site.css"]


def keep_blocks(app, what, name, obj, options, lines):
    """What a module's docstring indents is a table or code, not a quotation."""
    if what == "module":
        text = re.sub(r"^(\S.*\n\n)(?= )", r"\1.. code-block:: none\n\n", "\n".join(lines), flags=re.MULTILINE)
        lines[:] = text.split("\n")


def check_reference(app, env):
    """A public name that autodoc left out, as it does constants, fails the build."""
    domain = env.domains.python_domain
    for module in map(importlib.import_module, domain.modules):
        for name in getattr(module, "__all__", ()):
            if f"{module.__name__}.{name}" not in domain.objects and not inspect.ismodule(getattr(module, name)):
                logging.getLogger(__name__).warning("%s.%s is in no page of docs/api", module.__name__, name)


def redirect(app, exception):
    """The site's address leads to the first page, which is in docs/ as all others are."""
    page = f'<!doctype html><meta http-equiv="refresh" content="0; url={root_doc}.html">\n'
    (Path(app.outdir) / "index.html").write_text(page)


def setup(app):
    app.connect("autodoc-process-docstring", keep_blocks)
    app.connect("env-check-consistency", check_reference)
    app.connect("build-finished", redirect)
