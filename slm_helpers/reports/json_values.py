"""Values as the reports' JSON files hold them."""

import math
from typing import Any


def rounded(value: Any) -> Any:
    """Return JSON without NaN and with six digits: so much is the same on every machine."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value.item() if hasattr(value, "item") else value
