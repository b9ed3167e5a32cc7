"""Where and how the arithmetic is done: device, precision and memory layout."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labkit.errors import InputError


@dataclass(frozen=True)
class Device:
    """A device with the precision and layout that are fastest on it.

    Args:
        torch_device: where tensors live.
        bf16: whether convolutions and matrix products run in bfloat16 (autocast).
        tf32: whether a GPU rounds the factors of float32 products to 10 bits of mantissa.
    """

    torch_device: torch.device
    bf16: bool
    tf32: bool = False

    @classmethod
    def choose(cls, name: str = "auto", precision: str = "auto") -> Device:
        """The device of this name ("auto", "cpu", "cuda", "cuda:1") at this precision.

        Raises:
            InputError: a device that is not there, or bf16 on hardware without it.
        """
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
        except RuntimeError:
            raise InputError(f"no device is called {name!r}; try auto, cpu or cuda") from None
        if device.type not in ("cpu", "cuda"):
            raise InputError(f"{name}: labkit trains on cpu or cuda")
        if device.type == "cuda":
            if not torch.cuda.is_available():
                raise InputError(f"{name}: no CUDA device here; use --device cpu")
            if device.index is not None and device.index >= torch.cuda.device_count():
                raise InputError(f"{name}: there are {torch.cuda.device_count()} CUDA devices")
        if precision == "tf32" and device.type != "cuda":
            raise InputError("precision tf32 is a GPU's; on a CPU use auto, fp32 or bf16")
        bf16 = precision == "bf16" or (precision == "auto" and has_bf16(device))
        return cls(device, bf16, precision == "tf32")

    @property
    def description(self) -> str:
        """In words, for a log: what it is and at which precision it works."""
        precision = "bf16" if self.bf16 else "tf32" if self.tf32 else "fp32"
        if self.torch_device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.torch_device)}, {precision}"
        return f"CPU, {os.cpu_count()} cores, {precision}"

    def place(self, network: nn.Module) -> nn.Module:
        """The network on the device, in channels-last layout."""
        network = network.to(self.torch_device)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def autocast(self) -> torch.autocast:
        """Context in which convolutions run at the device's precision."""
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=self.bf16)

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Context in which float32 is float32, also on a GPU, whose convolutions round to TF32."""
        before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = self.tf32
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before

    @contextlib.contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Context in which torch's random numbers come from `seed`; restores them afterwards."""
        devices = [self.torch_device] if self.torch_device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield

    def tensor(self, array: Tensor) -> Tensor:
        """The tensor on the device."""
        return array.to(self.torch_device, non_blocking=True)


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies matrices in bfloat16 faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
