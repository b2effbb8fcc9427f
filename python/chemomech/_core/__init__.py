"""The compiled core: chooses the extension that suits this processor and presents its names as ``chemomech._core``.

``pip install .`` compiles one extension for the machine at hand. A portable build (wheels) holds the whole extension
once per x86-64 level, v2 (baseline), v3 (AVX2, FMA) and v4 (AVX-512); the best one that runs here is imported. The
environment variable ``CHEMOMECH_SIMD`` (v2, v3 or v4) asks for another.
"""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from . import _cpu

_V3 = ("avx", "avx2", "bmi", "bmi2", "fma")
_FEATURES = {  # the instruction sets a level may use; best level first
    "v4": (*_V3, "avx512f", "avx512vl", "avx512bw", "avx512dq", "avx512cd"),
    "v3": _V3,
    "v2": ("sse4.2", "popcnt"),
    "native": tuple(filter(None, _cpu.native_features.split(","))),
}


def _choose() -> tuple[str, list[str]]:
    """The level to import and the levels that were built, best first."""
    built = [level for level in _FEATURES if find_spec(f"{__name__}._{level}") is not None]
    wanted = os.environ.get("CHEMOMECH_SIMD")
    if wanted is not None and wanted not in built:
        raise ImportError(f"CHEMOMECH_SIMD={wanted} is not built; this installation has {', '.join(built)}")
    for level in built if wanted is None else [wanted]:
        missing = [feature for feature in _FEATURES[level] if not _cpu.has_feature(feature)]
        if not missing:
            return level, built
    if wanted is not None:
        raise ImportError(f"CHEMOMECH_SIMD={wanted} needs {', '.join(missing)}, which this processor lacks")
    if built == ["native"]:
        raise ImportError(
            f"chemomech was compiled for another processor: this one lacks {', '.join(missing)}; "
            "reinstall it here with: pip install --force-reinstall --no-deps --no-cache-dir <path of chemomech>"
        )
    raise ImportError(f"this processor is below the lowest level that was built ({built[-1]})")


_level, _built = _choose()
_module = import_module(f"._{_level}", __name__)
globals().update({name: value for name, value in vars(_module).items() if not name.startswith("_")})


def build_info() -> dict[str, Any]:
    """What is loaded: ``simd`` level, ``levels`` built, ``compiler``, ``openmp`` (bool), ``threads`` (int)."""
    return {"simd": _level, "levels": _built, **_module.compiled()}
