"""The device and the precision that a config means on this machine."""

import logging
from functools import cache

import torch

from rlm.config import Device, EncoderName, Precision, StudyConfig
from rlm.errors import InputError

log = logging.getLogger(__name__)


def resolve_device(device: Device) -> torch.device:
    """Return the device to train on: ``"auto"`` takes a GPU if there is one, ``"cuda"`` requires one."""
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("expected a GPU for device 'cuda', found none that PyTorch can use; choose 'auto' or 'cpu'")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def resolve_config(config: StudyConfig) -> StudyConfig:
    """Set the precision that pays off on this machine, once for all processes and machines that train."""
    precision = resolve_precision(config.precision, resolve_device(config.device), config.encoder)
    return config.model_copy(update={"precision": precision})


@cache
def resolve_precision(precision: Precision, device: torch.device, encoder: EncoderName = "lstm") -> Precision:
    """
    Return ``"bf16"`` only where it is faster: with AMX or a GPU since Ampere; log a warning elsewhere.

    Without AMX, products of float32 were 1.8 times as fast on a CPU that has AVX-512's instructions for bfloat16. With
    it, no encoder but an LSTM gained for certain, since the others spend little time on products
    (``docs/performance.md``).
    """
    if precision == "fp32":
        return precision
    if device.type == "cuda":
        has_hardware = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of PyTorch do not tell
        has_hardware = known.get("amx_bf16", False)
        if has_hardware and "lstm" not in encoder:
            log.warning("precision bf16: no faster for %s on a CPU; matrices are multiplied in fp32", encoder)
            return "fp32"
    if has_hardware:
        return precision
    log.warning(
        "precision bf16: no faster here, with neither AMX nor a GPU since Ampere; matrices are multiplied in fp32"
    )
    return "fp32"
