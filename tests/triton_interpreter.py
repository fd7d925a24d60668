"""Triton's interpreter, made to compute what a device does."""

import ctypes
import importlib.metadata
import os
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import numpy as np

FUSED = Path(__file__).with_name("fused.c")


def start_interpreter():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined
    np.seterr(all="ignore")  # the interpreter's arithmetic is NumPy's
    interpret_as_the_device_computes()


def interpret_as_the_device_computes():
    """Mend interpreters older than 3.9, whose fma rounds twice; and than 3.8, where the minimum of NaN and a number is NaN and
    loops fail with NumPy 2.4."""
    from triton.runtime import interpreter

    version = tuple(map(int, importlib.metadata.version("triton").split(".")[:2]))
    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    if version < (3, 9):
        library = ctypes.CDLL(compiled_fused())

        def fma(self, x, y, z):
            arrays = [np.ascontiguousarray(a) for a in np.broadcast_arrays(x.data, y.data, z.data)]
            result = np.empty_like(arrays[0])
            function = library.fma_double if result.dtype == np.float64 else library.fma_float
            function(*(ctypes.c_void_p(a.ctypes.data) for a in (*arrays, result)), ctypes.c_long(result.size))
            return handle(result, z.dtype.scalar)

        builder.create_fma = fma

        # They patch triton.language anew whenever one device function calls another, which takes most of their time.
        patch_and_call = interpreter.InterpretedFunction.__call__

        def call(self, *arguments, **options):
            if self.fn.__module__.startswith("triton."):
                return patch_and_call(self, *arguments, **options)
            return self.rewrite()(*arguments, **options)

        interpreter.InterpretedFunction.__call__ = call
    if version < (3, 8):
        builder.create_minnumf = lambda self, a, b: self.binary_op(a, b, np.fmin)
        builder.create_maxnumf = lambda self, a, b: self.binary_op(a, b, np.fmax)
        patch_tensor = interpreter._patch_lang_tensor

        def patch_tensor_and_index(tensor, *scope):
            patch_tensor(tensor, *scope)
            set_attribute = scope[0].set_attr if scope else setattr
            set_attribute(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))

        interpreter._patch_lang_tensor = patch_tensor_and_index


def compiled_fused():
    library = Path(tempfile.mkdtemp()) / "fused.so"
    compiler = sysconfig.get_config_var("CC").split()
    subprocess.run([*compiler, "-O2", "-shared", "-fPIC", FUSED, "-o", library, "-lm"], check=True)
    return library
