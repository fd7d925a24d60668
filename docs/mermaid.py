"""The Sphinx directive mermaid, as which MyST reads GitHub's fenced blocks: a picture that the reader's browser draws.

mermaid.min.js is taken from build/mermaid, where make docs puts it; without it the picture stays text.
"""

import html
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

SCRIPT = Path(__file__).resolve().parent.parent / "build/mermaid/mermaid.min.js"


class Mermaid(Directive):
    has_content = True

    def run(self):
        picture = html.escape("\n".join(self.content))
        return [nodes.raw("", f'<pre class="mermaid">{picture}</pre>', format="html")]


def add_script(app, pagename, templatename, context, doctree):
    """Load its 3 MB on the pages alone that have a picture."""
    if SCRIPT.exists() and 'class="mermaid"' in context.get("body", ""):
        app.add_js_file(SCRIPT.name)


def setup(app):
    app.add_directive("mermaid", Mermaid)
    app.connect("html-page-context", add_script)
    if SCRIPT.exists():
        app.config.html_static_path.append(str(SCRIPT.parent))
    return {"parallel_read_safe": True}
