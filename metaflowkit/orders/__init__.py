"""How the inner loop enters the outer gradient. The import lines below are the list of what exists."""

from metaflowkit.orders.base import Order
from metaflowkit.orders.exact import Exact
from metaflowkit.orders.first import First
from metaflowkit.orders.implicit import Implicit
from metaflowkit.orders.reptile import Reptile
from metaflowkit.orders.truncate import Truncate

__all__ = ["Exact", "First", "Implicit", "Order", "Reptile", "Truncate"]
