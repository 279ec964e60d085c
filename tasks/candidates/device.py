"""Resolve on which device and in which precision a model runs, to what the machine has."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from esci_tournament.registry.errors import CandidateError, UsageError

_PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_WIDE = 256


def resolve_device(name: str = "auto") -> torch.device:
    """Return the torch device that a name means.

    Args:
        name: "auto" (the first GPU, else the CPU), "cpu", "cuda" (the first GPU) or "cuda:N".

    Returns:
        The device; a GPU always with its number.

    Raises:
        UsageError: If the name means nothing or the machine has no such device.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if available else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or (":" in name and not number.isdecimal()):
        raise UsageError(f"device {name!r} is none of auto, cpu, cuda, cuda:N; correct the setting `device`")
    index = int(number or 0)
    if index >= available:
        raise UsageError(f"device {name!r}: this machine has {available} CUDA device(s); use auto or cpu")
    return torch.device(f"cuda:{index}")


def resolve_precision(name: str, device: torch.device, width: int = 0) -> torch.dtype | None:
    """Return the dtype of autocast, or None for plain float32.

    "auto" takes bfloat16 on a GPU that has it and float16 on an older one. On a CPU it takes bfloat16 if the processor
    has instructions for it and the model is at least 256 wide: there MiniLM-L6 trained in half the time of float32,
    while the many small operations of a narrow model only gain casts.

    Args:
        name: "auto", "float32", "bfloat16" or "float16".
        device: Where the model runs.
        width: Hidden size of the model; read with "auto" on a CPU.

    Returns:
        `torch.bfloat16`, `torch.float16` or None.

    Raises:
        UsageError: If float16 is asked for on a CPU: its gradients would underflow, and there is no scaler for it.

    Example:
        >>> resolve_precision("bfloat16", torch.device("cpu"))
        torch.bfloat16
    """
    if name == "float32":
        return None
    if name == "auto":
        if device.type != "cuda":
            return torch.bfloat16 if width >= _WIDE and _processor_has_bfloat16() else None
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if name == "float16" and device.type == "cpu":
        raise UsageError("precision 'float16' needs a GPU; on a CPU use auto, float32 or bfloat16")
    return _PRECISIONS[name]


def _processor_has_bfloat16() -> bool:
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public name for these
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Return the context in which a forward pass computes in `dtype`; a context that does nothing for None."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def device_name(device: torch.device) -> str:
    """Return the name of the hardware, such as "NVIDIA A100-SXM4-40GB" or the processor's model name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch inside the context and restore the caller's random state after it.

    Args:
        seed: The seed, for the CPU and every GPU.
        device: The GPU whose random state is restored too; None or a CPU for the CPU's alone.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Ask a GPU for repeatable kernels inside the context and restore the caller's flags; a CPU needs no asking.

    An operation without a repeatable kernel warns and runs all the same.
    """
    if device.type != "cuda":
        yield
        return
    algorithms, warn = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms, warn_only=warn)
        torch.backends.cudnn.benchmark = benchmark


@contextlib.contextmanager
def memory_guard(doing: str) -> Iterator[None]:
    """Turn an exhausted memory, on GPU or CPU, into a CandidateError that says while doing what.

    Args:
        doing: What the block does, as the message says it: "training (epoch 1)".

    Raises:
        CandidateError: If the block runs out of memory.
        RuntimeError: As the block raised it, if that is about something else.
    """
    try:
        yield
    except (torch.cuda.OutOfMemoryError, MemoryError) as error:
        raise CandidateError(_exhausted(doing, error)) from error
    except RuntimeError as error:
        # torch's CPU allocator has no exception class of its own
        if "can't allocate memory" not in str(error) and "out of memory" not in str(error):
            raise
        raise CandidateError(_exhausted(doing, error)) from error


def _exhausted(doing: str, error: Exception) -> str:
    first = next(iter(str(error).splitlines()), "")[:200]
    return (
        f"out of memory while {doing} ({first or type(error).__name__}); "
        "lower batch_size, raise accumulation, lower max_length, or take a smaller model"
    )
