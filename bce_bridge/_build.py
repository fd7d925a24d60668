"""Build bce_bridge._core from c_src/ with cffi, in out-of-line API mode. Run by setuptools."""

import re
import sysconfig
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "c_src"


def declarations():
    """The public header as cffi's parser wants it: no preprocessor lines, no extern "C"; the numbers written out."""
    header = (SOURCES / "bce.h").read_text(encoding="utf-8")
    constants = dict(re.findall(r"^#define (\w+) (\d+)$", header, re.MULTILINE))
    body = header[header.index("typedef enum") : header.rindex("#ifdef __cplusplus")]
    body = re.sub(r"^#.*$", "", body, flags=re.MULTILINE)
    for name, value in constants.items():
        body = re.sub(rf"\b{name}\b", value, body)
    texts = "static char *const BCE_VERSION;\nstatic char *const BCE_COMPILER;\n"
    interruption = 'extern "Python" int bce_python_interrupted(void *);\nint bce_interrupted(void *);\n'
    return body + "".join(f"#define {name} ...\n" for name in constants) + texts + interruption


SOURCE = """
#include "bce.h"
#ifdef __clang__
#define BCE_COMPILER "clang " __clang_version__
#else
#define BCE_COMPILER "GCC " __VERSION__
#endif

#include <stdatomic.h>
#include <sys/time.h>

static int bce_python_interrupted(void *);

/* For bce_arguments: asks Python, ten times a second at most, since that may wait for the GIL. */
static int bce_interrupted(void *nothing)
{
    static _Atomic int64_t last;
    struct timeval now;
    gettimeofday(&now, NULL);
    int64_t tenths = (int64_t)now.tv_sec * 10 + now.tv_usec / 100000;
    return atomic_exchange(&last, tenths) != tenths && bce_python_interrupted(nothing);
}
"""


ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "bce_bridge._core",
    SOURCE,
    sources=sorted(path.relative_to(ROOT).as_posix() for path in SOURCES.glob("*.c")),
    depends=sorted(path.relative_to(ROOT).as_posix() for path in SOURCES.iterdir() if path.suffix in {".h", ".inc"}),
    include_dirs=["c_src"],
    py_limited_api=not sysconfig.get_config_var("Py_GIL_DISABLED"),
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
