"""Gymnasium's vector info, arrays over all rows with masks, and one row of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def spread(values: Mapping[str, Any], rows: NDArray[np.int64], num_envs: int) -> dict[str, Any]:
    """Put values of some rows into arrays of all rows, as `VectorEnv._add_info` does row by row.

    Args:
        values: name -> array of shape (k, ...), or a mapping of such; leaving out a row is done by
            giving `(array, known)` with `known` of shape (k,).
        rows: the rows the values belong to, shape (k,).
        num_envs: how many rows there are.

    Returns:
        `name` of shape (num_envs, ...), 0 or None elsewhere, and `_name`, True at the rows.
    """
    info: dict[str, Any] = {}
    for name, value in values.items():
        mask = np.zeros(num_envs, dtype=np.bool_)
        if isinstance(value, Mapping):
            mask[rows] = True
            info[name], info[f"_{name}"] = spread(value, rows, num_envs), mask
            continue
        array, known = value if isinstance(value, tuple) else (value, True)
        mask[rows] = known
        full = np.zeros((num_envs, *array.shape[1:]), dtype=array.dtype)
        if array.dtype == object:
            full.fill(None)
        full[rows] = array
        info[name], info[f"_{name}"] = full, mask
    return info


def row_info(info: Mapping[str, Any], row: int) -> dict[str, Any]:
    """One row of a vector info, as a single environment would return it.

    Args:
        info: arrays over all rows with masks, mappings of such, or values for all rows alike.
        row: which row.
    """
    single: dict[str, Any] = {}
    for name, value in info.items():
        if name.startswith("_") and name[1:] in info:
            continue
        mask = info.get(f"_{name}")
        if mask is not None and not mask[row]:
            continue
        if isinstance(value, Mapping):
            single[name] = row_info(value, row)
        elif isinstance(value, np.ndarray) and value.ndim:
            item = value[row]
            single[name] = item.item() if isinstance(item, np.generic) else item
        else:
            single[name] = value
    return single
