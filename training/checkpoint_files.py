"""Read checkpoint files of others: safetensors, or PyTorch's own format without any code in it.

A file is checked before PyTorch reads it, so that a small one cannot ask for much memory.
"""

import json
import re
import warnings
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from ..engine.contract.errors import BackendError, CheckpointError
from ..engine.contract.files import check_file
from ..engine.contract.shortage import describe_shortage

LARGEST_CHECKPOINT = 8 << 30  # bytes
_LARGEST_RECORD = 64 << 20  # bytes of the pickle in an archive, which names the tensors
_LONGEST_HEADER = 100 << 20  # bytes, that safetensors allows
_NAMES_CODE = re.compile("unsupported (global|class)", re.IGNORECASE)  # in the errors of torch.load
SAFETENSORS = ".safetensors"


def read_checkpoint(path: Path, device: str = "cpu") -> object:
    """Return the contents of a checkpoint, with its tensors on a device.

    A `.safetensors` file gives a dictionary of tensors; if its metadata has the entry `config`, in JSON, it gives the
    dictionary that `stvsr train` writes, with the other entries of the metadata as its record.
    Raises CheckpointError for a file that is missing, damaged, too large or not a checkpoint.
    """
    try:
        check_file(path.stat(), path, LARGEST_CHECKPOINT)
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint {path}: name another file.") from None
    except OSError as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read ({error.strerror}): name another file.") from error
    try:
        if path.suffix == SAFETENSORS or _is_safetensors(path):
            return _read_safetensors(path, device)
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the version of a damaged pickle
            return torch.load(path, map_location=device, weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # damaged files raise almost any kind in torch.load
        if (shortage := describe_shortage(error)) is not None:
            raise BackendError(f"The checkpoint {path} cannot be loaded. {shortage}") from error
        if isinstance(error, UnpicklingError) and _NAMES_CODE.search(str(error)):
            raise CheckpointError(
                f"The checkpoint {path} contains other objects than weights, which could run code: choose a file of"
                " weights alone, such as .safetensors."
            ) from error
        if isinstance(error, UnpicklingError):
            raise CheckpointError(f"{path} is no checkpoint of PyTorch: choose another file.") from error
        reason = (str(error).splitlines() or ["it ends too soon"])[0].rstrip(".")
        raise CheckpointError(f"The checkpoint {path} cannot be read ({reason}): copy or download it again.") from error


def check_tensors(path: object, tensors: dict[str, Tensor]) -> None:
    """Raise CheckpointError unless the tensors of a checkpoint are dense arrays of real numbers on a device."""
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
            kind = "sparse" if tensor.layout != torch.strided else str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"The tensor '{name}' of {path} is of the kind '{kind}', and weights are dense arrays of real numbers:"
                " choose another checkpoint."
            )


def _is_safetensors(path: Path) -> bool:
    """Return whether a file without the suffix starts as safetensors: the length of a JSON object, and the object."""
    with path.open("rb") as file:
        head = file.read(9)
    length = int.from_bytes(head[:8], "little")
    return len(head) == 9 and head[8:] == b"{" and 2 <= length <= min(_LONGEST_HEADER, path.stat().st_size - 8)


def _read_safetensors(path: Path, device: str) -> dict[str, Any]:
    try:
        from safetensors import safe_open
    except ImportError as absent:
        raise CheckpointError(
            f'{path} is read with safetensors, which is not installed: pip install "stvsr[training]".'
        ) from absent
    with safe_open(path, framework="pt", device=device) as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        record = dict(file.metadata() or {})
    if "config" not in record:
        return state
    return {"state_dict": state, "config": json.loads(record.pop("config")), **record}


def _check_archive(path: Path) -> None:
    """Raise CheckpointError for an archive that is compressed, or whose parts are larger than the file."""
    if not zipfile.is_zipfile(path):
        return  # the format before archives: its tensors are read as far as the file goes
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError(f"The checkpoint {path} is compressed, which PyTorch never does: choose another file.")
    if sum(member.file_size for member in members) > path.stat().st_size or any(
        member.file_size > _LARGEST_RECORD for member in members if member.filename.endswith(".pkl")
    ):
        raise CheckpointError(f"The parts of the checkpoint {path} are too large: choose another file.")
