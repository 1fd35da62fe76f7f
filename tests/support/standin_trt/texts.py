"""What the library logs, word for word where users have reported it, in its manner where not."""

MAGIC = (
    "Error Code 1: Serialization (Serialization assertion magicTagRead == kMAGIC_TAG failed. Magic tag does not match)"
)
CUT = (
    "Error Code 1: Serialization (Serialization assertion bytesLeft >= size failed. "
    "Unexpected end of the serialized engine)"
)
VERSION = (
    "Error Code 1: Serialization (Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed. "
    "Version tag does not match. Note: Current Version: {here}, Serialized Engine Version: {built})"
)
DEVICE = (
    "Error Code 6: The engine plan file is generated on an incompatible device, "
    "expecting compute {here} got compute {built}, please rebuild."
)
HOST_CODE = (
    "Error Code 4: Engine host code is not allowed: the plan holds a lean runtime and engineHostCodeAllowed is false"
)
DESERIALIZE = "[runtime.cpp::deserializeCudaEngine] Error Code 4: Internal Error (Engine deserialization failed.)"
OTHER_MODEL = (
    "Using an engine plan file across different models of devices is not recommended "
    "and is likely to affect performance or even cause errors."
)
TIMING_MAGIC = (
    "Error Code 1: Serialization (Serialization assertion magicTag == kTIMING_CACHE_MAGIC failed. "
    "Magic tag does not match)"
)
TIMING_MISMATCH = "Timing cache was made by another version or on another device, and will not be used"
NO_CUDA = "CUDA initialization failure with error: 35. Please check your CUDA installation"
NO_CONTEXT = "Error Code 1: Cuda Runtime (invalid device context)"
TENSOR_NAME = (
    "Error Code 3: Internal Error (Given invalid tensor name: {name}. Get valid tensor names with getIOTensorName())"
)
NODE = "In node {node} with name: {name} and operator: {operator} (parseNode): {code}: {desc}"
NO_PROFILE = "Network has dynamic or shape inputs, but no optimization profile has been defined."
PROFILE_STATIC = (
    "Static dimension mismatch while setting input shape of {name}: {shape} in the network, {three} in the profile"
)
SHAPE_STATIC = (
    "Static dimension mismatch while setting input shape for {name}. "
    "Set dimensions are {wanted}. Expected dimensions are {declared}."
)
SHAPE_RANGE = (
    "Set dimension {wanted} for tensor {name} does not satisfy any optimization profiles. "
    "Valid range for profile {index}: {low}..{high}."
)
NO_ADDRESS = (
    "Neither address or allocator is set for tensor {name}. Call setTensorAddress or setOutputAllocator before enqueue"
)
DEFAULT_STREAM = (
    "Using default stream in enqueueV3() may lead to performance issues due to additional calls "
    "to cudaStreamSynchronize() by TensorRT to ensure correct synchronization."
)
CAPTURING = "Cuda Runtime (operation not permitted when stream is capturing)"
WORKSPACE_TACTIC = "Skipping tactic 0x0000000000000001 due to insufficient memory on requested size of {needed}"
WORKSPACE = "Error Code 10: Could not find any implementation for node {name} due to insufficient workspace"
UINT8 = "Found unsupported datatype UINT8: TensorRT does not support UINT8 types for intermediate tensors! ({name})"
PLUGIN = (
    'Assertion failed: creator && "Plugin not found, are the plugin name, version, and namespace correct?" ({name})'
)
ZERO_POINT = (
    'Assertion failed: shiftIsAllZeros(zeroPoint) && "TensorRT only supports symmetric quantization, '
    'meaning the zero point for quantization must be zero"'
)
