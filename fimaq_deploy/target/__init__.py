"""What runtimes can execute, as data: formats of numbers, the products that have kernels, and targets made of them."""

from fimaq_deploy.target.combined import combine, since
from fimaq_deploy.target.kernels import (
    CHANNEL,
    FLOATS,
    NVFP4_BLOCK,
    PRODUCTS,
    TENSOR,
    ComputeCapability,
    Format,
    Kernel,
    Operator,
    Product,
    ProductName,
    Shapes,
)
from fimaq_deploy.target.numbers import NUMBERS, NumberFormat
from fimaq_deploy.target.table import (
    ANY_RUNTIME,
    LEAST_PRODUCT,
    TARGETS,
    HighPrecision,
    Target,
    WeightStorage,
    add_target,
    find_target,
    load_guests,
)

__all__ = [
    "ANY_RUNTIME",
    "CHANNEL",
    "FLOATS",
    "LEAST_PRODUCT",
    "NUMBERS",
    "NVFP4_BLOCK",
    "PRODUCTS",
    "TARGETS",
    "TENSOR",
    "ComputeCapability",
    "Format",
    "HighPrecision",
    "Kernel",
    "NumberFormat",
    "Operator",
    "Product",
    "ProductName",
    "Shapes",
    "Target",
    "WeightStorage",
    "add_target",
    "combine",
    "find_target",
    "load_guests",
    "since",
]
