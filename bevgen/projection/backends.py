"""Who samples: the CPU or a GPU, two modules with the same `sample_from_host`; chosen here."""

from __future__ import annotations

from typing import Any

from bevgen.errors import InputError


def host_backend(device: str) -> Any:
    """Return the module that samples from host memory to host memory.

    Raises
    ------
    InputError
        As `cuda_backend`, of the device ``"cuda"``; ``"auto"`` means the CPU.
    """
    if device == "cuda":
        cuda_backend()
        from bevgen.projection import cuda_transfer

        return cuda_transfer
    from bevgen.projection import cpu

    return cpu


def cuda_backend() -> Any:
    """Return the module `bevgen.projection.cuda`.

    Raises
    ------
    InputError
        If Numba's support for GPUs is installed, but broken.
    """
    try:
        from bevgen.projection import cuda
    except Exception as error:  # such as an AttributeError of NumPy, for which it is too old
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(
            f"Numba's support for GPUs cannot be imported ({why}): its version does not fit those"
            " of Numba and NumPy. Install what does by pip install --upgrade 'bevgen[cuda]', or"
            " use the device cpu"
        ) from error
    return cuda
