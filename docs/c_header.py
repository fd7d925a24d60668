"""The Sphinx directive c-header: what a C header declares, with its comments, as objects of the C domain.

The header has the form of c_src/bce.h: blank lines part declarations; a comment stands above the declarations that it is about,
or behind an enumerator or a member.
"""

import re
import textwrap

from sphinx.util.docutils import SphinxDirective

COMMENT = re.compile(r"/\*(.*?)\*/", re.DOTALL)
TYPE = re.compile(r"typedef (enum|struct) \{(.*)\} (\w+);", re.DOTALL)
NAME = re.compile(r"\b(?:bce|BCE)_\w+\b")


def text(comment, known):
    """A comment as reStructuredText, in which the names that the header declares are links."""
    words = re.split(rf"({NAME.pattern})", " ".join(comment.split()))
    return "".join(f":c:expr:`{word}`" if word in known else re.sub(r"([*`|_\\])", r"\\\1", word) for word in words)


def described(kind, signatures, lines):
    """A directive of the C domain for declarations that share a description."""
    first, *others = signatures
    return [f".. c:{kind}:: {first}", *(f"   {other}" for other in others), "", *(f"   {line}" for line in lines), ""]


def members(kind, body, known):
    """The enumerators or the members of a type: a line's declarations share the comment behind them."""
    for line in body.strip().splitlines():
        about = [text(comment, known) for comment in COMMENT.findall(line)]
        code = COMMENT.sub("", line).strip().rstrip(",;")
        names = re.split(r",\s*", code) if "(" not in code else [code]
        if kind == "struct":  # the first has the type of all
            names[1:] = [f"{names[0].rpartition(' ')[0]} {name}" for name in names[1:]]
        yield from described({"enum": "enumerator", "struct": "member"}[kind], names, about)


def declarations(header):
    """reStructuredText of all that a header declares."""
    head, _, rest = header.partition("*/")
    yield ".. code-block:: none\n"
    yield textwrap.indent(textwrap.dedent(head.replace("/*", "  ", 1)), "    ")
    body = re.sub(r"^#(?!define BCE_\w+ ).*$|^extern \"C\" \{$|^\}$", "", rest, flags=re.MULTILINE)
    known = set(NAME.findall(COMMENT.sub("", body)))
    for chunk in re.split(r"\n\s*\n", body.strip()):
        comment, code = re.fullmatch(r"(?:/\*(.*?)\*/\s*)?(.*)", chunk, re.DOTALL).groups()
        about = [text(comment, known)] if comment else []
        if found := TYPE.fullmatch(code):
            kind, inner, name = found.groups()
            yield from described(kind, [name], [*about, "", *members(kind, inner, known)])
        elif code.startswith("#define"):
            for name, value in re.findall(r"^#define (\w+) (.*)$", code, re.MULTILINE):
                yield from described("macro", [name], [f"``{value}``", "", *about])
        else:
            yield from described("function", [" ".join(function.split()) for function in code.rstrip(";").split(";")], about)


class CHeader(SphinxDirective):
    required_arguments = 1

    def run(self):
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        with open(path, encoding="utf-8") as file:
            return self.parse_text_to_nodes("\n".join(declarations(file.read())))


def setup(app):
    app.add_directive("c-header", CHeader)
    return {"parallel_read_safe": True}
