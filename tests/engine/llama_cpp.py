"""Builds llama.cpp, to measure it beside the engine where nothing can be fetched.

`python -m tests.engine.llama_cpp pack` makes `.llama/llama.cpp.tar.xz`, some 2 MB, out of the sdist of
llama-cpp-python: its source less what `llama-bench` does not need. Where it has come to,
`python -m tests.engine.llama_cpp build cuda cpu` makes `.llama/cuda/bin/llama-bench` and `.llama/cpu/…`, and
of llama_logits.cpp and llama_tokens.cpp programs whose logits and ids the tests compare.

For CUDA only the kernels are compiled that Llama and Qwen2 need in the kinds that are measured: the rest
takes most of the time. The linker is told to miss it until it is called. `ggml-cuda/fattn.cu` chooses those
of attention: `ncols2` is 8 for five and more queries a key head (Qwen2 has 6 or 7), 4 for three and four
(Llama 3), 1 for one (Llama 2); `ncols1 · ncols2` is 8 to 64, by the number of tokens.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path, PurePosixPath

PACKAGE = "llama-cpp-python==0.3.36"
HOME = Path(".llama")
ARCHIVE = HOME / "llama.cpp.tar.xz"
SOURCE = HOME / "llama.cpp"
GGUF = SOURCE / "gguf-py"
"""The `gguf` package of the same source."""

_KEPT = (
    *("CMakeLists.txt", "LICENSE", "cmake", "include", "src", "common", "vendor", "gguf-py/gguf"),
    *("ggml/CMakeLists.txt", "ggml/cmake", "ggml/include", "ggml/src/ggml-cpu", "ggml/src/ggml-cuda"),
    "tools/llama-bench",
)
_TOOLS = "llama_add_compile_flags()\nadd_subdirectory(llama-bench)\n"
_UNUSED = ("fattn-tile-*", "fattn-mma-*", "mmq-instance-*")
_ATTENTION = tuple(
    f"fattn-mma-f16-instance-ncols1_{size // queries}-ncols2_{queries}.cu"
    for queries in (1, 4, 8)
    for size in (8, 16, 32, 64)
)
_OTHER_HEADS = re.compile(r"^DECL_FATTN_MMA_F16_CASE\((?!64,|128,).*\n", re.MULTILINE)
"""Kernels of heads that have neither 64 numbers nor 128."""
_USED = (
    *_ATTENTION,
    *(f"mmq-instance-{kind}.cu" for kind in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k", "q5_k", "q6_k")),
)
_INSTRUCTIONS = [
    "SSE42",
    "AVX",
    "AVX2",
    "BMI2",
    "FMA",
    "F16C",
    "AVX512",
    "AVX512_VBMI",
    "AVX512_VNNI",
    "AVX512_BF16",
]
_AS_LINUX_NAMES = {"SSE42": "sse4_2", "AVX512": "avx512bw", "AVX512_VBMI": "avx512vbmi"}
_OFF = ("LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_SERVER", "LLAMA_BUILD_APP", "LLAMA_OPENSSL")


def bench_program(device: str) -> Path:
    """Returns where `build` puts `llama-bench` for "cuda" or "cpu"."""
    return HOME / device / "bin" / "llama-bench"


def logits_program() -> Path:
    """Returns where `build` puts the program that prints logits, beside a CPU's `llama-bench`."""
    return HOME / "cpu" / "bin" / "llama-logits"


def tokens_program() -> Path:
    """Returns where `build` puts the program that prints the ids of texts."""
    return HOME / "cpu" / "bin" / "llama-tokens"


def pack() -> None:
    """Downloads the sdist and packs what of it is needed."""
    HOME.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        fetch = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            "llama-cpp-python",
        ]
        subprocess.run([*fetch, PACKAGE, "-d", folder], check=True)
        with (
            tarfile.open(next(Path(folder).glob("*.tar.gz"))) as whole,
            tarfile.open(ARCHIVE, "w:xz") as packed,
        ):
            for member in whole:
                _, _, path = member.name.partition("/vendor/llama.cpp/")
                if member.isfile() and _is_kept(path):
                    member.name, member.pax_headers = path, {}
                    packed.addfile(member, whole.extractfile(member))
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size / 1e6:.1f} MB")


def _is_kept(path: str) -> bool:
    files = path in _KEPT or str(PurePosixPath(path).parent) == "ggml/src"
    return files or path.startswith(tuple(f"{kept}/" for kept in _KEPT))


def unpack() -> None:
    """Unpacks the source, without the CUDA kernels that are not used."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(SOURCE, filter="data")
    (SOURCE / "tools" / "CMakeLists.txt").write_text(_TOOLS)
    instances = SOURCE / "ggml" / "src" / "ggml-cuda" / "template-instances"
    for pattern in _UNUSED:
        for file in instances.glob(pattern):
            if file.name not in _USED:
                file.unlink()
    for name in _ATTENTION:
        file = instances / name
        file.write_text(_OTHER_HEADS.sub("", file.read_text()))


def build(device: str) -> None:
    """Builds `llama-bench` for "cuda" (Hopper) or "cpu" (this processor)."""
    began = time.perf_counter()
    flags = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=OFF", "-DLLAMA_TOOLS_INSTALL=OFF", *_processor()]
    flags += [f"-D{name}=OFF" for name in _OFF]
    if device == "cuda":
        flags += ["-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=90-real", "-DGGML_CUDA_NO_VMM=ON"]
        flags += ["-DGGML_CUDA_NCCL=OFF", "-DCMAKE_SHARED_LINKER_FLAGS=-Wl,-z,lazy"]
        flags += ["-DCMAKE_EXE_LINKER_FLAGS=-Wl,-z,lazy -Wl,--allow-shlib-undefined", *_cublas()]
    folder = HOME / device
    made = ["cmake", "-G", "Ninja", "-S", str(SOURCE), "-B", str(folder), *flags]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    jobs = len(os.sched_getaffinity(0))
    with (HOME / f"{device}.log").open("w") as log:
        made = ["ninja", "-C", str(folder), "-j", str(jobs), "llama-bench"]
        done = subprocess.run(made, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        print("".join((HOME / f"{device}.log").read_text()[-3000:]))
        sys.exit(f"llama.cpp for {device} cannot be built")
    if device == "cpu":
        _build_programs(folder / "bin")
    print(f"llama.cpp for {device}: built in {time.perf_counter() - began:.0f} s on {jobs} cores", flush=True)


def _build_programs(libraries: Path) -> None:
    """Builds the programs of llama_logits.cpp and llama_tokens.cpp with the libraries of this folder."""
    headers = [f"-I{SOURCE / where}" for where in ("include", "ggml/include")]
    linked = [f"-L{libraries}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{libraries.resolve()}"]
    for program in (logits_program(), tokens_program()):
        source = Path(__file__).with_name(f"{program.name.replace('-', '_')}.cpp")
        made = ["g++", "-std=c++17", "-O2", str(source), *headers, *linked, "-o", str(program)]
        subprocess.run(made, check=True)


def _processor() -> list[str]:
    """Names the instructions of this processor, without AMX: virtual machines announce it and trap on it."""
    present = Path("/proc/cpuinfo").read_text().split()
    there = {name: _AS_LINUX_NAMES.get(name, name.lower()) in present for name in _INSTRUCTIONS}
    return [f"-DGGML_{name}={'ON' if there[name] else 'OFF'}" for name in there]


def _cublas() -> list[str]:
    """Tells CMake where cuBLAS lies if it came with torch and not with the compiler."""
    import torch

    site = Path(torch.__file__).parent.parent / "nvidia"
    header = next(site.glob("**/cublas_v2.h"), None)
    if header is None:
        return []
    places, flags = (
        (HOME / "cublas").resolve(),
        [f"-DCMAKE_{x}_FLAGS=-I{header.parent}" for x in ("CUDA", "CXX")],
    )
    places.mkdir(parents=True, exist_ok=True)
    for name in ("cublas", "cublasLt"):
        link = places / f"lib{name}.so"
        link.unlink(missing_ok=True)
        link.symlink_to(next(site.glob(f"**/lib{name}.so.*")))
        flags.append(f"-DCUDA_{name}_LIBRARY={link}")
    return flags


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["pack", "build"])
    parser.add_argument("devices", nargs="*", metavar="DEVICE", help="cuda, cpu")
    asked = parser.parse_args()
    if asked.what == "pack":
        pack()
        return
    unpack()
    for device in asked.devices:
        build(device)


if __name__ == "__main__":
    main()
