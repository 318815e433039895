"""The array library behind the arguments: NumPy, CuPy, or any array-API namespace.

Only this package imports CuPy, and only when it is asked for by name.
"""

from hcnn_core._threads import parallel_for as parallel_for
from hcnn_core._threads import worker_count as worker_count
from hcnn_core.backend._arrays import AnyArray as AnyArray
from hcnn_core.backend._arrays import Array as Array
from hcnn_core.backend._device import DeviceTables as DeviceTables
from hcnn_core.backend._device import address_of as address_of
from hcnn_core.backend._device import constant as constant
from hcnn_core.backend._device import cuda_stream as cuda_stream
from hcnn_core.backend._device import empty as empty
from hcnn_core.backend._device import lasting_memory as lasting_memory
from hcnn_core.backend._device import lasting_zeros as lasting_zeros
from hcnn_core.backend._device import placement as placement
from hcnn_core.backend._device import use_device as use_device
from hcnn_core.backend._device import write as write
from hcnn_core.backend._graphs import SPARE as SPARE
from hcnn_core.backend._graphs import card_of as card_of
from hcnn_core.backend._graphs import is_recording as is_recording
from hcnn_core.backend._graphs import record as record
from hcnn_core.backend._graphs import seconds_of as seconds_of
from hcnn_core.backend._graphs import seconds_on_device as seconds_on_device
from hcnn_core.backend._kernels import DeviceLimits as DeviceLimits
from hcnn_core.backend._kernels import compile_cuda as compile_cuda
from hcnn_core.backend._kernels import device_limits as device_limits
from hcnn_core.backend._kernels import with_shared_memory as with_shared_memory
from hcnn_core.backend._memory_order import in_memory_order as in_memory_order
from hcnn_core.backend._memory_order import joined as joined
from hcnn_core.backend._memory_order import memory_order as memory_order
from hcnn_core.backend._memory_order import reduced as reduced
from hcnn_core.backend._namespaces import FLOATING_DTYPES as FLOATING_DTYPES
from hcnn_core.backend._namespaces import array_namespace as array_namespace
from hcnn_core.backend._namespaces import dtype_name as dtype_name
from hcnn_core.backend._namespaces import fft_namespace as fft_namespace
from hcnn_core.backend._namespaces import get_namespace as get_namespace
from hcnn_core.backend._namespaces import library_of as library_of
from hcnn_core.backend._namespaces import moveaxis as moveaxis
from hcnn_core.backend._namespaces import on_host as on_host
from hcnn_core.backend._namespaces import permute_dims as permute_dims
from hcnn_core.backend._namespaces import plain_namespace as plain_namespace
from hcnn_core.backend._namespaces import refuse_notes as refuse_notes
from hcnn_core.backend._namespaces import require_broadcast as require_broadcast
from hcnn_core.backend._namespaces import require_floating as require_floating
from hcnn_core.backend._namespaces import require_real as require_real
from hcnn_core.backend._namespaces import require_shapes as require_shapes
from hcnn_core.backend._namespaces import reshape as reshape
from hcnn_core.backend._namespaces import to_numpy as to_numpy
from hcnn_core.backend._namespaces import wide_dtype as wide_dtype
from hcnn_core.backend._nccl import nccl_is_available as nccl_is_available
from hcnn_core.backend._nccl import nccl_sums as nccl_sums

__all__ = ["array_namespace", "get_namespace"]  # what users may call; autodiff and train also import the rest
